"""A relative's genome in the coordinates of another: what evolution has made of every base."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ...core.errors import UserError
from ...core.training.metrics import IGNORED
from ..tokenizer import UNK, DNATokenizer, N
from .genome import Genome


def open_relatives(fasta: Sequence[str | os.PathLike[str]], genome: Genome) -> Genome:
    """Open FASTA files that say, base by base, what a relative has in the place of those of ``genome``.

    A file has the records of the genome's file, of the same lengths and in the same order: A, C, G or T where a base of
    the relative is aligned with that of the genome, ``-`` where the relative has none, N (or an ambiguous base) where
    nothing is known.

    Returns:
        A genome with the contig numbers of ``genome``, whose symbols are nucleotides, [UNK] at ``-``, and N; see
        `relative_targets`.

    Raises:
        UserError: a file whose records are not the genome's.
    """
    relatives = Genome(fasta, DNATokenizer(other="unk"), gaps=True)
    for reader, of in zip(relatives.readers, genome.readers, strict=True):
        if list(reader.lengths.items()) != list(of.lengths.items()):
            raise UserError(
                f"{reader.path}: must be in the coordinates of {of.path}: the same records, in the same order, of the "
                f"same lengths; write it with `longscan genomics relatives`"
            )
    return relatives


def relative_targets(symbols: np.ndarray) -> np.ndarray:
    """Targets, int64, of `open_relatives`: N where the relative lacks the base, -100 where nothing is known."""
    return np.where(symbols == N, IGNORED, np.where(symbols == UNK, N, symbols.astype(np.int64)))
