"""Several FASTA files as one list of contigs, and where in them there is no nucleotide."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from ..tokenizer import A, DNATokenizer, T
from .fasta import FastaReader, open_fasta

_PIECE = 4_000_000  # bases held at a time while a contig is searched


@dataclass(frozen=True)
class Gaps:
    """Runs of positions that hold no A, C, G or T: ``start`` and ``end`` (int64), 0-based, half-open, ascending."""

    start: np.ndarray
    end: np.ndarray

    def count(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """How many positions of each window ``start`` to ``end`` lie in a run."""
        return self._before(end) - self._before(start)

    def _before(self, position: np.ndarray) -> np.ndarray:
        """How many positions below ``position`` lie in a run."""
        total = np.concatenate([[0], np.cumsum(self.end - self.start)])
        run = np.searchsorted(self.start, position, side="right")
        if not len(self.start):
            return total[run]
        last = np.maximum(run - 1, 0)
        beyond = np.where(run > 0, np.maximum(self.end[last] - position, 0), 0)
        return total[run] - beyond


class Genome:
    """The contigs of one or several FASTA files, numbered through in the order of the files.

    Args:
        fasta: the files.
        tokenizer: how characters become ids.
        gaps: whether the files may hold ``-``.

    Attributes:
        readers: one per file.
        names: contig names.
        lengths: int64, bases per contig.
        file: int32, the reader of each contig.
    """

    def __init__(self, fasta: Sequence[str | os.PathLike[str]], tokenizer: DNATokenizer, *, gaps: bool = False) -> None:
        self.readers: list[FastaReader] = [open_fasta(path, gaps=gaps) for path in fasta]
        self.tokenizer = tokenizer
        self.names = [name for reader in self.readers for name in reader.names]
        self.lengths = np.array([n for reader in self.readers for n in reader.lengths.values()], dtype=np.int64)
        self.file = np.repeat(np.arange(len(self.readers), dtype=np.int32), [len(r.names) for r in self.readers])
        self._gaps: dict[int, Gaps] = {}

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, file: int | None = None) -> dict[str, int]:
        """Contig name to number, in one file or in all of them.

        Raises:
            UserError: all files are asked for and two of them have a contig of the same name.
        """
        chosen = range(len(self)) if file is None else np.flatnonzero(self.file == file).tolist()
        result: dict[str, int] = {}
        for number in chosen:
            other = result.setdefault(self.names[number], number)
            if other != number:
                raise UserError(
                    f"contig {self.names[number]!r} is in {self.readers[self.file[other]].path} and in "
                    f"{self.readers[self.file[number]].path}; give one BED file per FASTA, or rename it"
                )
        return result

    def symbols(self, contig: int, start: int, end: int) -> np.ndarray:
        """Ids (uint8) of the bases ``start`` to ``end`` of a contig, as `DNATokenizer.encode_symbols`."""
        reader, name = self.readers[self.file[contig]], self.names[contig]
        where = f"{reader.path}: record {name!r}"
        return self.tokenizer.encode_symbols(reader.fetch(name, start, end), where=where, offset=start)

    def gaps(self, contig: int) -> Gaps:
        """Where a contig holds no nucleotide (found once, then remembered)."""
        if contig not in self._gaps:
            length = int(self.lengths[contig])
            edges = [np.zeros(0, dtype=np.int64)]
            inside = False
            for start in range(0, length, _PIECE):
                symbols = self.symbols(contig, start, min(start + _PIECE, length))
                gap = (symbols < A) | (symbols > T)
                edges.append(np.flatnonzero(np.diff(gap, prepend=inside)) + start)
                inside = bool(gap[-1])
            boundaries = np.concatenate([*edges, [length] if inside else []]).astype(np.int64)
            self._gaps[contig] = Gaps(boundaries[0::2], boundaries[1::2])
        return self._gaps[contig]
