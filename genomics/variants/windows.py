"""Windows of the genome around variants, all of one length, gathered without a loop over bases.

Index ``window // 2`` of a window holds the base at POS. The window with the ALT has the same left half, the ALT, and
then as much of what follows REF as fills it: an insertion pushes bases out at the right end, a deletion draws bases in,
so that both windows have the same length. What lies beyond the contig is N.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..data.fasta import FastaReader
from ..tokenizer import DNATokenizer

_GAP, _SPAN = (
    2**16,
    2**22,
)  # bases: a piece of a contig is read at once if its sites lie closer than this, and up to this


class ContextReader:
    """Reads many stretches of one width, a piece of a contig at a time, so that memory does not depend on contigs.

    Args:
        fasta: the genome.
        tokenizer: the model's; bases are read in upper case whatever it says of lower case, since that marks repeats.
    """

    def __init__(self, fasta: FastaReader, tokenizer: DNATokenizer) -> None:
        self.fasta, self.tokenizer = fasta, tokenizer

    def read(self, contigs: Sequence[str], starts: np.ndarray, width: int) -> np.ndarray:
        """Return the ids of ``width`` bases from each start (0-based, negative before the contig), uint8
        (count, width).

        Raises:
            UserError: a character in the FASTA that the tokenizer refuses.
        """
        result = np.empty((len(contigs), width), dtype=np.uint8)
        names = {name: number for number, name in enumerate(dict.fromkeys(contigs))}
        numbers = np.array([names[name] for name in contigs], dtype=np.int64)
        order = np.lexsort((starts, numbers))
        for run in _runs(numbers[order], starts[order]):
            rows = order[run]
            contig, first = contigs[rows[0]], int(starts[rows[0]])
            text = self.fasta.fetch(contig, first, int(starts[rows[-1]]) + width, pad=True).upper()
            piece = self.tokenizer.encode_symbols(text, where=f"{self.fasta.path}: {contig}", offset=first)
            result[rows] = np.lib.stride_tricks.sliding_window_view(piece, width)[starts[rows] - first]
        return result


def _runs(numbers: np.ndarray, starts: np.ndarray) -> list[slice]:
    """Split sorted sites where the contig changes, a gap is wide, or a piece would grow too long."""
    if not len(numbers):
        return []
    apart = (numbers[1:] != numbers[:-1]) | (starts[1:] - starts[:-1] > _GAP)
    groups = np.concatenate([[0], np.cumsum(apart)])
    origins = starts[np.searchsorted(groups, groups)]
    blocks = (starts - origins) // _SPAN
    edges = np.flatnonzero((groups[1:] != groups[:-1]) | (blocks[1:] != blocks[:-1])) + 1
    bounds = [0, *edges.tolist(), len(numbers)]
    return [slice(first, last) for first, last in itertools.pairwise(bounds)]


def alternative_windows(
    contexts: np.ndarray, refs: Sequence[np.ndarray], alts: Sequence[np.ndarray], window: int
) -> np.ndarray:
    """Return the windows that hold the ALTs, uint8 (count, window).

    Args:
        contexts: (count, at least window + longest deletion) ids; index ``window // 2`` is the base at POS.
        refs, alts: ids of the alleles, one pair for each row.
        window: bases of a window; no allele is longer than its right half.
    """
    centre = window // 2
    result = contexts[:, :window].copy()
    for row, (ref, alt) in enumerate(zip(refs, alts, strict=True)):
        after = centre + len(alt)
        result[row, centre:after] = alt
        if len(alt) != len(ref):
            follows = centre + len(ref)
            result[row, after:] = contexts[row, follows : follows + window - after]
    return result
