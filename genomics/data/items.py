"""What a model is asked about: stretches of a genome, read a piece at a time and in their own orientation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...core.errors import UserError
from ..tokenizer import A, DNATokenizer, T, reverse_complement_ids
from .bed import read_bed
from .contigs import ContigNames, read_aliases
from .fasta import FastaReader

_PIECE = 1 << 20  # bases held at a time while N are counted


class Readable(Protocol):
    """A sequence that gives its ids piece by piece."""

    @property
    def length(self) -> int:
        """Bases."""
        ...

    def symbols(self, start: int, end: int) -> np.ndarray:
        """Ids, uint8, of bases ``start`` to ``end`` of the sequence."""
        ...


@dataclass(frozen=True)
class ArraySequence:
    """Ids that are in memory, (length,) uint8."""

    ids: np.ndarray

    @property
    def length(self) -> int:
        """Bases."""
        return len(self.ids)

    def symbols(self, start: int, end: int) -> np.ndarray:
        """Ids of bases ``start`` to ``end``."""
        return self.ids[start:end]


@dataclass(frozen=True)
class SequenceReader:
    """Reads a FASTA as ids.

    Attributes:
        fasta: the file.
        tokenizer: the model's.
        keep_case: give lower-case letters to the tokenizer as they are; otherwise soft-masked repeats are read as
            what they are, nucleotides.
    """

    fasta: FastaReader
    tokenizer: DNATokenizer
    keep_case: bool = False

    def symbols(self, contig: str, start: int, end: int) -> np.ndarray:
        """Ids, uint8, of a window of a contig; positions past its ends are N."""
        text = self.fasta.fetch(contig, start, end, pad=True)
        where = f"{self.fasta.path}: {contig}"
        return self.tokenizer.encode_symbols(text if self.keep_case else text.upper(), where=where, offset=start)


@dataclass(frozen=True)
class GenomeItem:
    """One stretch of a contig.

    Attributes:
        reader: gives its ids.
        name: the record's, the interval's (column 4), or ``contig:start-end``.
        contig: the FASTA's name.
        start, end: 0-based, half-open; may lie past the ends of the contig, where there is N.
        strand: ``"+"``, or ``"-"`` if the sequence is the reverse complement of that stretch.
        n_bases: positions that are not A, C, G or T, those past the ends of the contig included; -1 before
            `count_n` was asked.
    """

    reader: SequenceReader
    name: str
    contig: str
    start: int
    end: int
    strand: str = "+"
    n_bases: int = -1

    @property
    def length(self) -> int:
        """Bases."""
        return self.end - self.start

    @property
    def padding(self) -> int:
        """Positions past the ends of the contig."""
        inside = min(self.end, self.reader.fasta.lengths[self.contig]) - max(self.start, 0)
        return self.length - max(inside, 0)

    def symbols(self, start: int, end: int) -> np.ndarray:
        """Ids, uint8, of bases ``start`` to ``end`` of the sequence, in its own orientation."""
        if self.strand == "+":
            return self.reader.symbols(self.contig, self.start + start, self.start + end)
        return reverse_complement_ids(self.reader.symbols(self.contig, self.end - end, self.end - start))

    def positions(self, start: int, end: int) -> np.ndarray:
        """The 0-based position in the contig, int64, of each base ``start`` to ``end`` of the sequence."""
        offsets = np.arange(start, end)
        return self.start + offsets if self.strand == "+" else self.end - 1 - offsets

    def count_n(self) -> int:
        """Positions that are not A, C, G or T, read in pieces."""
        count = 0
        for begin in range(0, self.length, _PIECE):
            ids = self.symbols(begin, min(begin + _PIECE, self.length))
            count += len(ids) - int(((ids >= A) & (ids <= T)).sum())
        return count


def record_items(reader: SequenceReader) -> list[GenomeItem]:
    """Every record of the FASTA, whole.

    Raises:
        UserError: a record without bases.
    """
    items = [GenomeItem(reader, name, name, 0, length) for name, length in reader.fasta.lengths.items()]
    empty = next((item for item in items if not item.length), None)
    if empty is not None:
        raise UserError(f"{reader.fasta.path}: record {empty.name!r} has no bases; remove it")
    return items


def interval_items(
    reader: SequenceReader,
    bed: str | os.PathLike[str],
    *,
    aliases: str | os.PathLike[str] | None = None,
    around_summit: int | None = None,
) -> list[GenomeItem]:
    """The intervals of a BED or narrowPeak file, in its order.

    Args:
        bed: the file; an interval whose strand (column 6) is - is read as its reverse complement.
        aliases: table of contig names, see `read_aliases`.
        around_summit: take so many bases instead, of which number ``around_summit // 2`` (from 0, on the + strand) is
            the summit, or the middle of an interval without one; past the ends of the contig they are N.

    Raises:
        UserError: what is wrong with the files, or ``around_summit`` below 1.
    """
    if around_summit is not None and around_summit < 1:
        raise UserError(f"--around-summit {around_summit}: must be at least 1 base")
    fasta = reader.fasta
    table = None if aliases is None else read_aliases(aliases, fasta.names)
    intervals = read_bed(bed, fasta.lengths, names=ContigNames(fasta.names, str(fasta.path), table), details=True)
    items = []
    for index in range(len(intervals)):
        start, end = int(intervals.start[index]), int(intervals.end[index])
        contig = intervals.contigs[intervals.contig[index]]
        name = intervals.name(index) or f"{contig}:{start}-{end}"
        if around_summit is not None:
            summit = int(intervals.summit[index])
            centre = start + summit if summit >= 0 else (start + end) // 2
            start = centre - around_summit // 2
            end = start + around_summit
        items.append(GenomeItem(reader, name, contig, start, end, "-" if intervals.strand[index] < 0 else "+"))
    return items


def check_n(items: Sequence[GenomeItem], max_n_fraction: float | None = None) -> tuple[list[GenomeItem], list[str]]:
    """Count what is no nucleotide in every item, and refuse or leave out what has too much of it.

    Args:
        max_n_fraction: leave out items of which more than this fraction (0 to below 1) is N; where None, none is left
            out and one of nothing but N is an error.

    Returns:
        The items that stay, with their counts, and the names of the others.

    Raises:
        UserError: an item of nothing but N, a fraction out of range, or no item left.
    """
    if max_n_fraction is not None and not 0 <= max_n_fraction < 1:
        raise UserError(f"--max-n-fraction {max_n_fraction:g}: must be at least 0 and below 1")
    kept, left_out = [], []
    for item in items:
        count = item.count_n()
        if max_n_fraction is None and count == item.length:
            raise UserError(
                f"{item.reader.fasta.path}: {item.name!r} ({item.contig}:{item.start}-{item.end}) holds nothing but N, "
                f"which has no meaningful embedding; leave such items out with --max-n-fraction 0.5"
            )
        if max_n_fraction is not None and count > max_n_fraction * item.length:
            left_out.append(item.name)
        else:
            kept.append(GenomeItem(item.reader, item.name, item.contig, item.start, item.end, item.strand, count))
    if not kept:
        raise UserError(f"--max-n-fraction {max_n_fraction:g}: leaves none of {len(items)} items; raise it")
    return kept, left_out


__all__ = [
    "ArraySequence",
    "GenomeItem",
    "Readable",
    "SequenceReader",
    "check_n",
    "interval_items",
    "record_items",
]
