"""How far a model is from treating both strands of DNA alike, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from .data.items import SequenceReader
from .inference import DNAModel
from .tokenizer import COMPLEMENT, A, T, reverse_complement_ids

_TRIES = 50


@dataclass
class Asymmetry:
    """Difference between an answer to x and the same answer to the reverse complement of x, over all windows.

    Attributes:
        quantity: what is compared.
        maximum, mean: absolute differences, in the unit of the quantity.
        scale: the largest absolute value of either answer.
        checked: whether a tolerance applies to it: it is what the model itself answers.
    """

    quantity: str
    maximum: float = 0.0
    total: float = 0.0
    count: int = 0
    scale: float = 0.0
    checked: bool = False

    @property
    def mean(self) -> float:
        """Mean absolute difference."""
        return self.total / max(1, self.count)

    @property
    def relative(self) -> float:
        """``maximum`` over ``scale``."""
        return self.maximum / self.scale if self.scale else 0.0

    def add(self, answer: Tensor, other: Tensor) -> None:
        """Take in the answers to a batch of windows, and to their reverse complements mapped back to these.

        Raises:
            UserError: an answer that is not finite, of which no difference says anything.
        """
        difference = (answer - other).abs()
        if not bool(difference.isfinite().all()):
            raise UserError(f"{self.quantity}: the model's answer is not finite; check its weights, or --precision 32")
        self.maximum = max(self.maximum, float(difference.max()))
        self.total += float(difference.sum(dtype=torch.float64))
        self.count += difference.numel()
        self.scale = max(self.scale, float(answer.abs().max()), float(other.abs().max()))


def draw_windows(reader: SequenceReader, length: int, count: int, seed: int) -> np.ndarray:
    """Draw windows (count, length) of ids, int64, evenly from all records; those of more than half N are drawn again.

    Raises:
        UserError: numbers below 1, no record that is long enough, or nearly nothing but N.
    """
    for name, value, least in (("--window", length, 2), ("--windows", count, 1)):
        if value < least:
            raise UserError(f"{name} {value}: must be at least {least}")
    fasta = reader.fasta
    places = np.array([max(0, n - length + 1) for n in fasta.lengths.values()], dtype=np.int64)
    if not places.sum():
        longest = max(fasta.lengths.values())
        raise UserError(f"{fasta.path}: no record has {length} bases, the longest has {longest}; lower --window")
    generator, ends = np.random.default_rng(seed), np.cumsum(places)
    rows: list[np.ndarray] = []
    for _ in range(_TRIES * count):
        place = int(generator.integers(ends[-1]))
        record = int(np.searchsorted(ends, place, side="right"))
        start = place - int(ends[record] - places[record])
        ids = reader.symbols(fasta.names[record], start, start + length)
        if ((ids >= A) & (ids <= T)).mean() >= 0.5:
            rows.append(ids)
        if len(rows) == count:
            return np.stack(rows).astype(np.int64)
    raise UserError(
        f"{fasta.path}: nearly every window of {length} bases is more than half N; lower --window or take another FASTA"
    )


def measure(model: DNAModel, windows: np.ndarray, batch_size: int = 16) -> list[Asymmetry]:
    """Compare what the model says of windows (count, length) and of their reverse complements.

    What is compared depends on the model:

    - a masked language model: logits at each position, of the complementary symbols;
    - a causal one, whose logits at a position have seen other bases on each strand: the log-likelihood of all bases
      but the first read, in nats;
    - a classifier: the classes' logits, of the bases alone and, where it was trained with special tokens, with them.

    And for all of them the mean-pooled embedding of one strand and of both.

    Raises:
        UserError: windows longer than the model takes, or answers that are not finite.
    """
    classifier = model.model.config.head == "classification"
    special = len(model.tokenizer.prefix) + len(model.tokenizer.suffix) if classifier else 0
    model.check_length(windows.shape[1], "--window", special)
    answers: list[tuple[Asymmetry, Callable[[np.ndarray], Tensor], Callable[[Tensor], Tensor]]] = []

    def same(answer: Tensor) -> Tensor:
        return answer

    if classifier:
        answers.append((Asymmetry("class logits", checked=True), model.class_logits, same))
        if model.tokenizer.special_tokens != "none":
            quantity = f"class logits, with special tokens ({model.tokenizer.special_tokens})"
            answers.append((Asymmetry(quantity), lambda ids: model.class_logits(_with_special(model, ids)), same))
    elif model.causal:
        quantity = "log-likelihood of a window"
        answers.append((Asymmetry(quantity, checked=True), lambda ids: log_likelihoods(model, ids).sum(1), same))
    else:
        answers.append((Asymmetry("logits at each position", checked=True), model.logits, _mapped_back))
    answers += [
        (Asymmetry("mean-pooled embedding, --strand forward"), lambda ids: model.features(ids).mean(1), same),
        (Asymmetry("mean-pooled embedding, --strand both"), lambda ids: model.features(ids, "both").mean(1), same),
    ]
    for ids in _batches(windows, batch_size):
        for asymmetry, answer, back in answers:
            asymmetry.add(answer(ids), back(answer(reverse_complement_ids(ids))))
    return [asymmetry for asymmetry, _, _ in answers]


def log_likelihoods(model: DNAModel, ids: np.ndarray | Tensor) -> Tensor:
    """Log-probability (batch, length - 1), float32, in nats, that a causal model gives to each base but the first,
    after those before it."""
    tensor = torch.as_tensor(ids, device=model.device)
    probabilities = model.logits(tensor)[:, :-1].log_softmax(-1)
    return probabilities.gather(-1, tensor[:, 1:].long().unsqueeze(-1)).squeeze(-1)


def _mapped_back(logits: Tensor) -> Tensor:
    """Logits (batch, length, vocabulary) of the reverse complement as those of the sequence itself."""
    rows = logits.shape[-1]
    return logits.flip(1)[..., torch.tensor([COMPLEMENT[i] if i < len(COMPLEMENT) else i for i in range(rows)])]


def _with_special(model: DNAModel, ids: np.ndarray) -> np.ndarray:
    return np.stack([model.tokenizer.add_special_tokens(row) for row in ids])


def _batches(windows: np.ndarray, size: int) -> Iterable[np.ndarray]:
    return (windows[begin : begin + size] for begin in range(0, len(windows), size))


__all__ = ["Asymmetry", "draw_windows", "log_likelihoods", "measure"]
