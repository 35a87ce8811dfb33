"""Embeddings of sequences of any length, in memory that does not grow with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .data.items import Readable
from .inference import DNAModel
from .reading import BATCH_TOKENS, Reading, Span
from .tokenizer import A, reverse_complement_ids

Pooling = Literal["mean", "max", "last"]

_LOOK_AHEAD = 16  # batches whose sequences are sorted by length before they run


class Embedder:
    """Runs a model over sequences; results come in the order of the sequences.

    A batch holds windows of one length alone, so no result depends on the other sequences.

    Args:
        model: what is asked.
        reading: how.
        progress: called with the number of tokens after each batch.
    """

    def __init__(self, model: DNAModel, reading: Reading, progress: Callable[[int], Any] = lambda tokens: None) -> None:
        self.model, self.reading, self.progress = model, reading, progress

    def pooled(self, sequences: Iterable[Readable], pooling: Pooling) -> Iterator[np.ndarray]:
        """Yield one vector (d_model,) float32 for each sequence.

        Sums run in float64. ``last`` is the feature at the last base that is read: of the reverse strand, the first of
        the sequence. With both strands the result is the mean of theirs, which for ``mean`` is the mean of the
        features of both strands at each position.
        """
        for block in self._blocks(sequences):
            if block[0].length > self.reading.window:
                pools = self._new_pools(pooling)
                for strand, start, features in self._pieces(block[0]):
                    pools[strand].add(features, first=start == 0, last=start + features.shape[1] == block[0].length)
                yield _joined(pools, block[0].length)[0]
                continue
            results: dict[int, np.ndarray] = {}
            for rows, parts in self._batches(block):
                pools = self._new_pools(pooling)
                for pool, part in zip(pools, parts, strict=True):
                    pool.add(part, first=True, last=True)
                results |= zip(rows, _joined(pools, parts[0].shape[1]), strict=True)
            for row in range(len(block)):
                yield results.pop(row)

    def tokens(self, sequences: Iterable[Readable]) -> Iterator[Iterator[np.ndarray]]:
        """Yield for each sequence its features (bases, d_model) float32 piece by piece, the mean of the strands read;
        take all pieces of one before the next.

        Raises:
            UserError: with a carried state and the reverse strand, whose pieces come from the end.
        """
        self.reading.check_tokens()
        for block in self._blocks(sequences):
            if block[0].length > self.reading.window:
                yield self._long_tokens(block[0])
                continue
            results: dict[int, np.ndarray] = {}
            for rows, parts in self._batches(block):
                results |= zip(rows, _mean(parts).cpu().numpy(), strict=True)
            for row in range(len(block)):
                yield iter([results.pop(row)])

    def trial(self, windows: int, length: int) -> float:
        """Run ``windows`` windows of ``length`` made-up bases at once and return the seconds that one token takes."""
        passes = 2 if self.reading.strand == "both" else 1
        for count, bases in ((1, min(length, 64)), (windows, length)):  # first whatever is compiled on first use
            ids = A + torch.randint(4, (count, bases), generator=torch.Generator().manual_seed(0))
            start = time.perf_counter()
            if self.reading.carry:
                passes_run = 1
                self.model.next_features(ids)[0].sum().item()
            else:
                passes_run = passes
                self.model.strand_features(ids, self.reading.strand)[0].sum().item()
        return (time.perf_counter() - start) / (passes_run * ids.numel())

    def _new_pools(self, pooling: Pooling) -> list[_Pool]:
        strands = {"forward": [False], "reverse": [True], "both": [False, True]}[self.reading.strand]
        return [_Pool(pooling, reverse) for reverse in strands]

    def _blocks(self, sequences: Iterable[Readable]) -> Iterator[list[Readable]]:
        """Cut the sequences into blocks: one long sequence alone, or several short ones of bounded size."""
        block: list[Readable] = []
        tokens = 0
        for sequence in sequences:
            long = sequence.length > self.reading.window
            full = len(block) == _LOOK_AHEAD * self.reading.batch_size or tokens > 2 * BATCH_TOKENS
            if block and (long or full):
                yield block
                block, tokens = [], 0
            if long:
                yield [sequence]
            else:
                block.append(sequence)
                tokens += sequence.length
        if block:
            yield block

    def _batches(self, block: list[Readable]) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Rows of the block and their features (rows, length, d_model), for each strand, in batches of one length."""
        groups: dict[int, list[int]] = {}
        for row, sequence in enumerate(block):
            groups.setdefault(sequence.length, []).append(row)
        for length, members in groups.items():
            size = self.reading.batch(length)
            for begin in range(0, len(members), size):
                rows = members[begin : begin + size]
                yield rows, self._features(np.stack([block[row].symbols(0, length) for row in rows]))

    def _features(self, ids: np.ndarray) -> list[Tensor]:
        parts = self.model.strand_features(ids, self.reading.strand)
        self.progress(ids.size * len(parts))
        return parts

    def _pieces(self, sequence: Readable) -> Iterator[tuple[int, int, Tensor]]:
        """Of a long sequence: number of the strand, where the piece begins, and its features (1, bases, d_model)."""
        if not self.reading.carry:
            for span, parts in self._windows(sequence):
                for strand, part in enumerate(parts):
                    yield strand, span.start, part
            return
        if self.reading.strand != "reverse":
            yield from ((0, start, features) for start, features in self._carried(sequence, reverse=False))
        if self.reading.strand != "forward":
            strand = int(self.reading.strand == "both")
            yield from ((strand, start, features) for start, features in self._carried(sequence, reverse=True))

    def _carried(self, sequence: Readable, *, reverse: bool) -> Iterator[tuple[int, Tensor]]:
        """Read with the state carried, the reverse strand from the end of the sequence."""
        state: Any = None
        starts = range(0, sequence.length, self.reading.window)
        for offset in starts:
            stop = min(offset + self.reading.window, sequence.length)
            start, end = (sequence.length - stop, sequence.length - offset) if reverse else (offset, stop)
            ids = sequence.symbols(start, end)
            ids = reverse_complement_ids(ids) if reverse else ids
            features, state = self.model.next_features(ids[None].astype(np.int64), state)
            self.progress(ids.size)
            yield start, features.flip(1) if reverse else features

    def _windows(self, sequence: Readable) -> Iterator[tuple[Span, list[Tensor]]]:
        """Read by windows; the context is cut off."""
        spans, size = list(self.reading.spans(sequence.length)), self.reading.batch(self.reading.window)
        for begin in range(0, len(spans), size):
            batch = spans[begin : begin + size]
            ids = [sequence.symbols(span.read, span.read + self.reading.window) for span in batch]
            parts = self._features(np.stack(ids))
            for row, span in enumerate(batch):
                kept = slice(span.start - span.read, span.end - span.read)
                yield span, [part[row : row + 1, kept] for part in parts]

    def _long_tokens(self, sequence: Readable) -> Iterator[np.ndarray]:
        if self.reading.carry:
            for _, features in self._carried(sequence, reverse=False):
                yield features[0].cpu().numpy()
        else:
            for _, parts in self._windows(sequence):
                yield _mean(parts)[0].cpu().numpy()


class _Pool:
    """Pools features (batch, length, d_model) that come in pieces."""

    def __init__(self, pooling: Pooling, reverse: bool) -> None:
        self.pooling, self.reverse = pooling, reverse
        self.value: Tensor | None = None

    def add(self, features: Tensor, *, first: bool, last: bool) -> None:
        """Take in a piece; ``first`` and ``last`` say whether it holds the sequence's first and last base."""
        if self.pooling == "mean":
            total = features.sum(1, dtype=torch.float64)
            self.value = total if self.value is None else self.value + total
        elif self.pooling == "max":
            highest = features.amax(1)
            self.value = highest if self.value is None else torch.maximum(self.value, highest)
        elif first if self.reverse else last:
            self.value = features[:, 0 if self.reverse else -1].clone()

    def result(self, length: int) -> Tensor:
        """(batch, d_model) of sequences of ``length`` bases."""
        assert self.value is not None
        return self.value / length if self.pooling == "mean" else self.value


def _joined(pools: list[_Pool], length: int) -> np.ndarray:
    return _mean([pool.result(length) for pool in pools]).float().cpu().numpy()


def _mean(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else (parts[0] + parts[1]) / 2


__all__ = ["Embedder", "Pooling"]
