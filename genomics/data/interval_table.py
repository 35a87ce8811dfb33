"""Intervals of a reference as records whose sequences are fetched when they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...core.errors import UserError
from ..tokenizer import DNATokenizer, reverse_complement_ids
from .contigs import ContigNames
from .fasta import FastaReader
from .nucleotides import are_nucleotides, no_nucleotide

logger = logging.getLogger(__name__)

_PER_RECORD = ("reader", "contig", "start", "end", "reverse", "source", "lines", "names", "labels", "targets")


@dataclass(frozen=True)
class IntervalTable:
    """Intervals with strand and targets; only their places are in memory. See `Records` for what is not named here.

    Attributes:
        path: the file or folder that lists them.
        readers: the references; ``reader`` (int32, one for each record) indexes them.
        contigs: contig names; ``contig`` (int32) indexes them.
        start, end: int64, 0-based, half-open; where a fixed width was asked for, they may lie outside the contig.
        reverse: bool, whether the sequence is the reverse complement.
        sources: the files; ``source`` (int32) indexes them, ``lines`` (int64) has the line in it.
    """

    path: str
    tokenizer: DNATokenizer
    readers: tuple[FastaReader, ...]
    contigs: tuple[str, ...]
    sources: tuple[str, ...]
    reader: np.ndarray
    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray
    reverse: np.ndarray
    source: np.ndarray
    lines: np.ndarray
    names: np.ndarray
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    target_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: int) -> np.ndarray:
        """Ids of the interval's sequence on its strand, uint8; N where it lies outside the contig."""
        reader, contig = self.readers[self.reader[index]], self.contigs[self.contig[index]]
        start, end = int(self.start[index]), int(self.end[index])
        text = reader.fetch(contig, start, end, pad=True)
        symbols = self.tokenizer.encode_symbols(text, where=f"{reader.path}: record {contig!r}", offset=start)
        return reverse_complement_ids(symbols) if self.reverse[index] else symbols

    @property
    def lengths(self) -> np.ndarray:
        return self.end - self.start

    def where(self, index: int) -> str:
        return f"{self.sources[self.source[index]]}:{self.lines[index]}"

    def select(self, index: np.ndarray) -> IntervalTable:
        chosen: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[index] for name in _PER_RECORD
        }
        return replace(self, **chosen)

    def check_nucleotides(self, tokenizer: DNATokenizer) -> None:
        """Refuse intervals of nothing but N. One base of each is read, and the whole where that is no nucleotide.

        Raises:
            UserError: names the first of them in the order of the genome, in which compressed files are read fast.
        """
        middle = replace(self, start=(self.start + self.end) // 2, end=(self.start + self.end) // 2 + 1)
        for row in np.lexsort((self.start, self.contig, self.reader)):
            if not are_nucleotides(middle[row]).any() and not are_nucleotides(self[row]).any():
                raise no_nucleotide(f"{self.where(row)}: interval {str(self.names[row])!r}", tokenizer)

    def overlaps(self, other: IntervalTable) -> np.ndarray:
        """Whether each interval shares a base, on either strand, with one of ``other``, bool (records,).

        Both tables must be of one reference.
        """
        result = np.zeros(len(self), dtype=bool)
        numbers = {name: number for number, name in enumerate(other.contigs)}
        for number, name in enumerate(self.contigs):
            mine = np.flatnonzero(self.contig == number)
            theirs = np.flatnonzero(other.contig == numbers.get(name, -1))
            if not len(mine) or not len(theirs):
                continue
            theirs = theirs[np.argsort(other.start[theirs])]
            # Of those that begin before an interval ends, does the one that reaches farthest reach into it?
            reach = np.maximum.accumulate(other.end[theirs])
            before = np.searchsorted(other.start[theirs], self.end[mine])
            result[mine] = (before > 0) & (reach[np.maximum(before, 1) - 1] > self.start[mine])
        return result

    def widened(self, width: int) -> IntervalTable:
        """The windows of ``width`` bases around the intervals' centres, (start + end) // 2 being base width // 2.

        What lies beyond a contig's end is N; how many windows reach there is logged.
        """
        start = (self.start + self.end) // 2 - width // 2
        end = start + width
        sizes = [[reader.lengths.get(contig, 0) for contig in self.contigs] for reader in self.readers]
        size = np.array(sizes, dtype=np.int64)[self.reader, self.contig]
        padded = np.maximum(-start, 0) + np.maximum(end - size, 0)
        if padded.any():
            logger.info(
                "%s: %d of %d windows of %d bases reach beyond their contig; %d bases are filled with N",
                *(self.path, np.count_nonzero(padded), len(self), width, padded.sum()),
            )
        return replace(self, start=start, end=end)


class IntervalCollector:
    """Makes an `IntervalTable` of intervals that are added one by one, each checked against its reference.

    Args:
        path: what the table is called in messages.
        tokenizer: of the sequences.
    """

    def __init__(self, path: str, tokenizer: DNATokenizer) -> None:
        self.path, self.tokenizer = path, tokenizer
        self._readers: dict[int, int] = {}
        self._reader_list: list[FastaReader] = []
        self._contigs: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._rows: list[tuple[int, ...]] = []
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        reader: FastaReader,
        contigs: ContigNames,
        fields: Sequence[str],
        strand: str,
        name: str,
        file: str,
        line: int,
    ) -> None:
        """Add the interval ``fields`` (region, start, end; as in the file, 0-based and half-open).

        Raises:
            UserError: with file and line: a start or end that is no integer, start not before end, an unknown region,
                an end beyond it, a strand other than +, - and ``.``.
        """
        where = f"{file}:{line}"
        region, begin, finish = fields
        for text, column in ((begin, "start"), (finish, "end")):
            if not (text.isascii() and text.isdecimal()):
                raise UserError(f"{where}: {column} {text!r} is not a whole number from 0; correct it")
        start, end = int(begin), int(finish)
        if start >= end:
            raise UserError(f"{where}: start {start} is not before end {end}; intervals are 0-based, half-open")
        contig = contigs.require(region, where)
        if end > reader.lengths[contig]:
            raise UserError(
                f"{where}: end {end} lies beyond {region}, which has {reader.lengths[contig]} bases in {reader.path}; "
                f"is it another assembly?"
            )
        if strand not in ("+", "-", "."):
            raise UserError(f"{where}: strand {strand!r} is not +, - or '.'; correct it")
        if id(reader) not in self._readers:
            self._readers[id(reader)] = len(self._reader_list)
            self._reader_list.append(reader)
        number = self._contigs.setdefault(contig, len(self._contigs))
        source = self._sources.setdefault(file, len(self._sources))
        self._rows.append((self._readers[id(reader)], number, start, end, strand == "-", source, line))
        self._names.append(name)

    def table(self) -> IntervalTable:
        """Return what was added.

        Raises:
            UserError: nothing was.
        """
        if not self._rows:
            raise UserError(f"{self.path}: holds no interval; is it the right file?")
        rows = np.array(self._rows, dtype=np.int64)
        return IntervalTable(
            self.path,
            self.tokenizer,
            tuple(self._reader_list),
            tuple(self._contigs),
            tuple(self._sources),
            reader=rows[:, 0].astype(np.int32),
            contig=rows[:, 1].astype(np.int32),
            start=rows[:, 2].copy(),
            end=rows[:, 3].copy(),
            reverse=rows[:, 4].astype(bool),
            source=rows[:, 5].astype(np.int32),
            lines=rows[:, 6].copy(),
            names=np.array(self._names, dtype=object),
        )


def open_reference(path: str, aliases: str | None = None) -> tuple[FastaReader, ContigNames]:
    """Open a FASTA and what finds its contigs under other names.

    Args:
        path: the FASTA, or ``embedded:…``.
        aliases: table of further names, see `read_aliases`.
    """
    from .contigs import read_aliases
    from .fasta import open_fasta

    reader = open_fasta(path)
    known = None if aliases is None else read_aliases(aliases, reader.names)
    return reader, ContigNames(reader.names, str(reader.path), known)
