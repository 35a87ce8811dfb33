"""How sequences of any length are read: in one pass, in pieces with a carried state, or by overlapping windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..core.errors import UserError
from .inference import DNAModel, Strand

#: The most tokens of one batch, whatever the batch size: what bounds memory.
BATCH_TOKENS = 1 << 15
#: Bases of a piece with a carried state, and of a window without.
PIECE, WINDOW = 8192, 32768
#: Context on a side of a window. What a causal Mamba remembers fades with exp(-dt); with the smallest initial step of
#: 0.001 a context of 8192 leaves 3e-4 of one contribution and changes features by some 1e-6 (measured).
CAUSAL_CONTEXT, CONTEXT = 8192, 4096


class Span(NamedTuple):
    """One window of a long sequence: bases ``start`` to ``end`` of its results are kept, of those read from ``read``
    on."""

    start: int
    end: int
    read: int


@dataclass(frozen=True)
class Reading:
    """How sequences are read; `plan_reading` fills in what is left open.

    Attributes:
        strand: see `DNAModel.features`.
        window: bases that go through the model at once; what is not longer is read in one pass.
        left, right: bases on either side of a window whose results are discarded, when reading by windows.
        carry: read longer sequences in pieces of ``window`` with the state carried between them, which is exact;
            otherwise by windows that overlap.
        batch_size: the most windows of a batch.
    """

    strand: Strand
    window: int
    left: int
    right: int
    carry: bool
    batch_size: int

    @property
    def method(self) -> str:
        """In words, for files and reports."""
        if self.carry:
            return f"pieces of {self.window} with the state carried (exact)"
        return f"windows of {self.window}, context {self.left} left and {self.right} right (approximate)"

    def batch(self, length: int) -> int:
        """How many windows of ``length`` bases one batch holds."""
        return max(1, min(self.batch_size, BATCH_TOKENS // length))

    def check_tokens(self) -> None:
        """Refuse to give the features of every base where they do not come in the order of the bases.

        Raises:
            UserError: with a carried state and the reverse strand, whose pieces come from the end.
        """
        if self.carry and self.strand != "forward":
            raise UserError(
                f"--pooling none with --strand {self.strand}: a carried state reads that strand from the end, and the "
                f"bases cannot be written piece by piece; add --no-carry, or take --strand forward"
            )

    def spans(self, length: int) -> Iterator[Span]:
        """The windows of a sequence longer than ``window``, all of exactly that many bases."""
        start = 0
        while start < length:
            read = min(max(start - self.left, 0), length - self.window)
            end = length if read + self.window >= length else read + self.window - self.right
            yield Span(start, end, read)
            start = end

    def work(self, length: int) -> tuple[int, int]:
        """Windows and tokens that a sequence of ``length`` bases costs, over all strands that are read."""
        passes = 2 if self.strand == "both" else 1
        if length <= self.window:
            return passes, passes * length
        if self.carry:
            return passes * -(-length // self.window), passes * length
        count = passes * sum(1 for _ in self.spans(length))
        return count, count * self.window


def plan_reading(
    model: DNAModel,
    longest: int,
    *,
    strand: Strand = "forward",
    window: int | None = None,
    context: int | None = None,
    carry: bool | None = None,
    batch_size: int = 16,
) -> Reading:
    """Decide how sequences are read.

    Args:
        longest: bases of the longest.
        window: bases at once; by default 8,192 with a carried state and 32,768 (at most the model's limit) without.
        context: bases on each side of a window whose results are discarded; a causal model reading one strand needs
            them on one side alone. By default 8,192 for a causal model and 4,096 otherwise, at most a quarter of the
            window. Given, it means windows.
        carry: carry the state; by default wherever that takes constant memory.

    Raises:
        UserError: numbers out of range or that exclude each other, ``carry`` for a model that reads from both ends,
            or a model with a limit below ``longest`` and no ``window``.
    """
    limit = model.max_length
    if window is not None:
        if window < 1:
            raise UserError(f"--window {window}: must be at least 1 base")
        model.check_length(window, f"--window {window}")
    if carry and not model.causal:
        raise UserError(
            f"--carry: {model.name} reads from both ends and has no state to carry; leave it out to read long records "
            f"by windows"
        )
    if carry and context is not None:
        raise UserError("--carry and --context exclude each other: with the state carried no context is needed")
    if limit is not None and longest > limit and (window is None or carry):
        raise UserError(
            f"a record of {longest} bases is longer than {model.name} takes ({limit}); give --window {limit} (without "
            f"--carry) to read it by windows"
        )
    if carry is None:
        carry = model.carries and context is None
    if window is None:
        window = PIECE if carry else min(WINDOW, limit or WINDOW)
    if carry:
        return Reading(strand, window, 0, 0, True, batch_size)
    sides = (int(not model.causal or strand != "reverse"), int(not model.causal or strand != "forward"))
    if context is None:
        context = min(CAUSAL_CONTEXT if model.causal else CONTEXT, window // 4)
    if context < 0 or sum(sides) * context >= window:
        raise UserError(
            f"--context {context}: must be at least 0 and leave something of --window {window} beside the context on "
            f"{sum(sides)} side(s)"
        )
    return Reading(strand, window, sides[0] * context, sides[1] * context, False, batch_size)


__all__ = ["BATCH_TOKENS", "Reading", "Span", "plan_reading"]
