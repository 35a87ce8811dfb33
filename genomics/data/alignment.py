"""Two aligned genomes, each in the coordinates of the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..tokenizer import COMPLEMENT, UNK, DNATokenizer, N
from .paf import Alignment

#: A stretch that one genome lacks is a deletion up to so many bases; what is longer is rather another element.
LONGEST_DELETION = 30

_UNKNOWN, _DELETED = -1, -2
_TOKENIZER = DNATokenizer()
_COMPLEMENT = np.array(COMPLEMENT, dtype=np.uint8)


@dataclass
class PairedGenome:
    """For each base of a genome, the one of its relative that it is aligned with; ten bytes for each, and the text.

    Args:
        records: name to sequence.

    Attributes:
        start: where each record begins in the arrays, which hold all records in their order.
        symbols: (bases,) uint8, ids of the bases.
        partner: (bases,) int64, the aligned base's place in the relative's arrays; -1 where none is known, -2 where
            the relative lacks the base.
        reverse: (bases,) bool, whether the partner is on the other strand.
    """

    records: Mapping[str, str]
    start: dict[str, int] = field(init=False)
    symbols: np.ndarray = field(init=False)
    partner: np.ndarray = field(init=False)
    reverse: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        ends = np.cumsum([len(sequence) for sequence in self.records.values()])
        self.start = dict(zip(self.records, [0, *ends[:-1].tolist()], strict=True))
        self.symbols = _TOKENIZER.encode_symbols("".join(self.records.values()))
        self.partner = np.full(len(self.symbols), _UNKNOWN, dtype=np.int64)
        self.reverse = np.zeros(len(self.symbols), dtype=bool)

    def relative(self, other: PairedGenome) -> np.ndarray:
        """What the relative ``other`` has in the place of each base: (bases,) uint8, ids of A, C, G and T, [UNK] where
        it has none, N where nothing is known."""
        result = np.full(len(self.symbols), N, dtype=np.uint8)
        result[self.partner == _DELETED] = UNK
        known = self.partner >= 0
        symbols = other.symbols[self.partner[known]]
        result[known] = np.where(self.reverse[known], _COMPLEMENT[symbols], symbols)
        return result


def pair_genomes(
    genome: PairedGenome, relative: PairedGenome, alignments: Iterable[Alignment], shown: np.ndarray | None = None
) -> None:
    """Enter alignments of ``genome`` (the query) with ``relative`` (the target) into both.

    Where alignments overlap, the one with the most matches counts.

    Args:
        shown: (bases of the genome,) bool: bases that the relative's pairs may tell of; all where None. What is held
            out of the genome for validation must not come back as the partner of its relative.
    """
    for alignment in sorted(alignments, key=lambda each: each.matches):
        is_pair = np.isin(alignment.steps, list(b"M=X"))
        of_query, of_target = is_pair | (alignment.steps == ord("I")), is_pair | np.isin(alignment.steps, list(b"DN"))
        short = alignment.lengths <= LONGEST_DELETION
        at_query = np.cumsum(alignment.lengths * of_query) - alignment.lengths * of_query
        at_target = np.cumsum(alignment.lengths * of_target) - alignment.lengths * of_target
        first = genome.start[alignment.query] + (
            alignment.query_end - 1 if alignment.reverse else alignment.query_start
        )
        way = -1 if alignment.reverse else 1
        target_start = relative.start[alignment.target] + alignment.target_start

        lacking = first + way * _expand(at_query, alignment.lengths, ~of_target & short)
        genome.partner[lacking] = _DELETED
        query = first + way * _expand(at_query, alignment.lengths, is_pair)
        target = target_start + _expand(at_target, alignment.lengths, is_pair)
        genome.partner[query], genome.reverse[query] = target, alignment.reverse

        alone = ~of_query & short
        lacking = target_start + _expand(at_target, alignment.lengths, alone)
        if shown is not None:
            before = first + way * np.maximum(np.repeat(at_query[alone], alignment.lengths[alone]) - 1, 0)
            lacking = lacking[shown[before]]
            query, target = query[shown[query]], target[shown[query]]
        relative.partner[lacking] = _DELETED
        relative.partner[target], relative.reverse[target] = query, alignment.reverse


def _expand(start: np.ndarray, lengths: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The positions, in order, of all bases of the chosen steps."""
    start, lengths = start[chosen], lengths[chosen]
    return np.arange(lengths.sum()) + np.repeat(start - (np.cumsum(lengths) - lengths), lengths)


def known_stretches(known: np.ndarray, *, joined: int, least: int) -> list[tuple[int, int]]:
    """Where something is known: runs of True (0-based, half-open), those up to ``joined`` positions apart as one, those
    shorter than ``least`` left out."""
    positions = np.flatnonzero(known)
    if not len(positions):
        return []
    cuts = np.flatnonzero(np.diff(positions) > joined + 1)
    starts, ends = positions[np.append(0, cuts + 1)], positions[np.append(cuts, len(positions) - 1)] + 1
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True) if end - start >= least]
