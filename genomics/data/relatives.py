"""A relative's genome in the coordinates of another: what evolution has made of every base."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ...core.errors import UserError
from ...core.training.metrics import IGNORED
from ..tokenizer import A, C, G, N, T, reverse_complement_ids
from .fasta import FastaReader, open_fasta
from .genome import Genome

_UNREADABLE = -1
_TARGETS = np.full(256, _UNREADABLE, dtype=np.int64)
for _letters, _target in (("Aa", A), ("Cc", C), ("Gg", G), ("Tt", T), ("-", N), ("Nn", IGNORED)):
    for _letter in _letters:
        _TARGETS[ord(_letter)] = _target


class AlignedRelatives:
    """FASTA files that say, base by base, what a relative of each genome has in its place.

    A file has the records of the genome's file, of the same lengths: A, C, G or T where a base of the relative is
    aligned with that of the genome, ``-`` where the relative has none, N where nothing is known.

    Args:
        fasta: one file for each file of ``genome``.
        genome: the genome.

    Raises:
        UserError: a file whose records or lengths are not the genome's.
    """

    def __init__(self, fasta: Sequence[str | os.PathLike[str]], genome: Genome) -> None:
        self.readers: list[FastaReader] = [open_fasta(path, gaps=True) for path in fasta]
        self.genome = genome
        for reader, of in zip(self.readers, genome.readers, strict=True):
            for name, length in of.lengths.items():
                found = reader.lengths.get(name)
                if found != length:
                    has = "has no such record" if found is None else f"has {found:,} positions"
                    raise UserError(
                        f"{reader.path}: must be in the coordinates of {of.path}, whose record {name!r} has "
                        f"{length:,} bases, but it {has}"
                    )

    def targets(self, contig: int, start: int, end: int) -> np.ndarray:
        """What the relative has at bases ``start`` to ``end`` of a contig: int64 ids; N where it lacks the base, -100
        where nothing is known.

        Raises:
            UserError: a character other than A, C, G, T, N and -.
        """
        reader, name = self.readers[self.genome.file[contig]], self.genome.names[contig]
        text = reader.fetch(name, start, end)
        result = _TARGETS[np.frombuffer(text.encode("latin-1"), dtype=np.uint8)]
        if (result == _UNREADABLE).any():
            at = int((result == _UNREADABLE).argmax())
            raise UserError(
                f"{reader.path}: record {name!r}: {text[at]!r} at position {start + at + 1} is not A, C, G, T, - or N"
            )
        return result


def other_strand(targets: np.ndarray) -> np.ndarray:
    """Targets (length,) of the other strand: reversed, complemented; -100 stays."""
    known = targets[::-1] != IGNORED
    return np.where(known, reverse_complement_ids(np.where(targets == IGNORED, N, targets)), IGNORED)
