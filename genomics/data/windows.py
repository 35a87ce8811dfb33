"""From regions of a genome to the windows that a model sees: arrays throughout, so millions of them are cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .genome import Genome

Mode = Literal["first", "random", "tile"]


@dataclass(frozen=True)
class Regions:
    """Stretches of contigs, as arrays of one length.

    Attributes:
        contig: int32, contig number in the `Genome`.
        start, end: int64, 0-based, half-open.
        low, high: int64, how far a window that is longer than its region may reach.
    """

    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.contig)

    def select(self, index: np.ndarray) -> Regions:
        """The regions at ``index`` (integers or a bool mask)."""
        return Regions(self.contig[index], self.start[index], self.end[index], self.low[index], self.high[index])


@dataclass(frozen=True)
class Windows:
    """One entry per sample: ``contig`` (int32), ``start`` and ``end`` (int64). ``end - start`` is the window's length,
    or more where a random crop is taken from it. The counts say what was left out."""

    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray
    dropped_for_n: int
    dropped_as_short: int

    def __len__(self) -> int:
        return len(self.contig)


def contig_regions(genome: Genome) -> Regions:
    """Every contig, whole."""
    zero = np.zeros(len(genome), dtype=np.int64)
    return Regions(np.arange(len(genome), dtype=np.int32), zero, genome.lengths, zero, genome.lengths)


def block_regions(genome: Genome, block_size: int) -> Regions:
    """The contigs cut into blocks of ``block_size`` bases; the last block of a contig is shorter."""
    counts = -(-genome.lengths // block_size)
    contig, number = _expand(counts)
    start = number * block_size
    end = np.minimum(start + block_size, genome.lengths[contig])
    return Regions(contig.astype(np.int32), start, end, start, end)


def clip_to_blocks(genome: Genome, regions: Regions, block_size: int) -> tuple[Regions, np.ndarray]:
    """Each region reduced to the block that holds its middle, and the running number of that block in the genome."""
    counts = -(-genome.lengths // block_size)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    block = (regions.start + regions.end) // 2 // block_size
    low = block * block_size
    high = np.minimum(low + block_size, genome.lengths[regions.contig])
    clipped = Regions(regions.contig, np.maximum(regions.start, low), np.minimum(regions.end, high), low, high)
    return clipped, first[regions.contig] + block


def list_windows(
    genome: Genome, regions: Regions, seqlen: int, *, stride: int, mode: Mode, extend: bool, max_n_fraction: float
) -> Windows:
    """Windows of ``seqlen`` bases from regions.

    Args:
        mode: what becomes of a region longer than ``seqlen``: its ``"first"`` bases, a ``"random"`` crop in every
            epoch, or windows that ``"tile"`` it every ``stride`` bases (an incomplete last one is left out).
        extend: lengthen shorter regions on both sides alike, moved inside ``low`` and ``high`` where they reach beyond;
            otherwise shorter regions are left out.
        max_n_fraction: windows with this fraction of positions without a nucleotide, or more, are left out; so are
            those with fewer than two nucleotides, from which nothing can be learned.
    """
    start, end = regions.start, regions.end
    if extend:
        missing = np.maximum(seqlen - (end - start), 0)
        widened = np.minimum(np.maximum(start - missing // 2, regions.low), np.maximum(regions.high - seqlen, 0))
        start = np.where(missing > 0, widened, start)
        end = np.where(missing > 0, widened + seqlen, end)
    fits = (end - start >= seqlen) & (end <= regions.high) & (start >= regions.low)
    contig, start, end = regions.contig[fits], start[fits], end[fits]
    if mode == "tile":
        region, number = _expand((end - start - seqlen) // stride + 1)
        contig, start = contig[region], start[region] + number * stride
    if mode != "random":
        end = start + seqlen
    gaps = _gaps(genome, contig, start, end)
    keep = (gaps < max_n_fraction * (end - start)) & (end - start - gaps >= 2)
    return Windows(contig[keep], start[keep], end[keep], int((~keep).sum()), int((~fits).sum()))


def _gaps(genome: Genome, contig: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Positions without a nucleotide in each window."""
    result = np.zeros(len(contig), dtype=np.int64)
    order = np.argsort(contig, kind="stable")
    numbers, begins = np.unique(contig[order], return_index=True)
    for number, group in zip(numbers.tolist(), np.split(order, begins)[1:], strict=True):
        result[group] = genome.gaps(number).count(start[group], end[group])
    return result


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts (3, 1): which one each item belongs to (0, 0, 0, 1), and its number there (0, 1, 2, 0)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - first[owner]
