"""Which sample comes when, as pure functions of ``(seed, epoch, index)``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

_SAMPLE_STREAM, _ORDER_STREAM = 1, 2


class SampleKey(NamedTuple):
    """What a dataset is asked for: sample ``index`` as it is to look in ``epoch``."""

    epoch: int
    index: int  # type: ignore[assignment]  # a tuple's method of that name is not needed


def _generator(stream: int, seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return a counter-based generator; distinct arguments give streams that never overlap.

    Philox has a 128-bit key and a 256-bit counter: the key holds seed and stream, the upper half of the counter holds
    epoch and index, and the lower half is left to count the draws.
    """
    key = np.array([seed % 2**64, stream], dtype=np.uint64)
    counter = np.array([0, 0, index, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def sample_generator(seed: int, key: SampleKey) -> np.random.Generator:
    """Return the generator of one sample's augmentation, a pure function of ``(seed, key.epoch, key.index)``."""
    return _generator(_SAMPLE_STREAM, seed, key.epoch, key.index)


class ResumableSampler(Sampler[SampleKey]):
    """The share of one process in an epoch, as ``SampleKey``s, beginning at any place.

    The order is a pure function of ``(seed, epoch)``. Process ``rank`` of ``world_size`` takes every ``world_size``-th
    sample. The order is first lengthened from its beginning so that every process has the same number of samples,
    because collectives wait for all of them; the added ones are told apart by :meth:`is_padding`.

    Args:
        length: number of samples of the dataset.
        shuffle: a new order each epoch; otherwise the order of the dataset.
    """

    def __init__(self, length: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Make the next iteration that of ``epoch``, without its first ``start`` samples of this process."""
        self.epoch, self.start = epoch, start

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices (int64) that this process sees in ``epoch``, in order."""
        order = np.arange(self.length)
        if self.shuffle:
            order = _generator(_ORDER_STREAM, self.seed, epoch, 0).permutation(self.length)
        return np.resize(order, len(self) * self.world_size)[self.rank :: self.world_size]

    def is_padding(self, position: int) -> bool:
        """Whether the sample at ``position`` of this process repeats another one only to even out the processes."""
        return self.rank + position * self.world_size >= self.length

    def __iter__(self) -> Iterator[SampleKey]:
        epoch = self.epoch
        for index in self.order(epoch)[self.start :].tolist():
            yield SampleKey(epoch, index)

    def __len__(self) -> int:
        """Number of samples of a whole epoch for this process, wherever the iteration begins."""
        return -(-self.length // self.world_size)


class LengthBatches(Sampler[list[SampleKey]]):
    """Batches of samples of one length each, every sample in one of them; ordered by their first samples.

    Samples that are all of one length come in the order of the dataset. Process ``rank`` of ``world_size`` takes every
    ``world_size``-th batch; the first batches are repeated so that all processes have the same number.

    Args:
        lengths: length of each sample of the dataset.
        batch_size: the most samples in a batch.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        batches: list[np.ndarray] = []
        for length in np.unique(lengths):
            members = np.flatnonzero(lengths == length)
            batches += np.split(members, range(batch_size, len(members), batch_size))
        self.batches = sorted(batches, key=lambda batch: int(batch[0]))
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return -(-len(self.batches) // self.world_size)

    def is_padding(self, position: int) -> bool:
        """Whether the batch at ``position`` of this process repeats another one only to even out the processes."""
        return self.rank + position * self.world_size >= len(self.batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for position in range(len(self)):
            batch = self.batches[(self.rank + position * self.world_size) % len(self.batches)]
            yield [SampleKey(0, index) for index in batch.tolist()]
