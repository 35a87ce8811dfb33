"""Where each sequence of a batch or of a packed row begins and ends."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import UserError

# Reading cu_seqlens from a GPU waits for all work before it, and every layer of a model gets the same tensor.
_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def sequence_offsets(operator: str, cu_seqlens: Tensor | None, batch: int, length: int) -> list[int]:
    """Offsets of the sequences in the flattened (batch * length) token axis: sequence s is [offsets[s], offsets[s+1]).

    Without ``cu_seqlens`` every row of the batch is a sequence. Raises ``UserError`` if the values of ``cu_seqlens``
    do not start with 0, increase strictly and end with ``length``.
    """
    if cu_seqlens is None:
        return list(range(0, (batch + 1) * length, length))
    cached = cu_seqlens.is_cuda and not cu_seqlens.is_inference()
    if cached and cu_seqlens in _known:
        version, offsets = _known[cu_seqlens]
        if version == cu_seqlens._version:
            return _checked(operator, offsets, length)
    offsets = cu_seqlens.tolist()
    if cached:
        _known[cu_seqlens] = (cu_seqlens._version, offsets)
    return _checked(operator, offsets, length)


def _checked(operator: str, offsets: list[int], length: int) -> list[int]:
    if offsets[0] != 0 or offsets[-1] != length:
        raise UserError(
            f"{operator}: cu_seqlens runs from {offsets[0]} to {offsets[-1]}, expected from 0 to the length {length}"
        )
    for index, (begin, end) in enumerate(pairwise(offsets)):
        if end <= begin:
            raise UserError(
                f"{operator}: cu_seqlens[{index + 1}] = {end} after {begin}, expected strictly increasing values"
            )
    return offsets


class PackedEnds:
    """First and last tokens of packed sequences in scan order, looked up by blocks of tokens."""

    def __init__(self, cu_seqlens: Tensor, offsets: list[int], reverse: bool) -> None:
        self.cu_seqlens, self.offsets, self.reverse = cu_seqlens, offsets, reverse

    def first_tokens(self, begin: int, end: int) -> tuple[slice, Tensor] | None:
        """Which sequences start their scan in [begin, end), and at which positions counted from ``begin``."""
        return self._marked(begin, end, 1 if self.reverse else 0)

    def last_tokens(self, begin: int, end: int) -> tuple[slice, Tensor] | None:
        """Which sequences end their scan in [begin, end), and where."""
        return self._marked(begin, end, 0 if self.reverse else 1)

    def _marked(self, begin: int, end: int, side: int) -> tuple[slice, Tensor] | None:
        # Side 0 marks the first token of each sequence, side 1 the last, which is one before the next offset.
        sequences = slice(side, len(self.offsets) - 1 + side)
        bounds = self.offsets[sequences]
        which = slice(bisect_left(bounds, begin + side), bisect_left(bounds, end + side))
        if which.start == which.stop:
            return None
        return which, self.cu_seqlens[sequences][which].long() - (begin + side)
