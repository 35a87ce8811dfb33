"""Two aligned genomes written as targets for pretraining, each in the coordinates of the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.files import replacing
from ..tokenizer import UNK, N
from .alignment import PairedGenome, known_stretches, pair_genomes
from .bed import Intervals, column_split
from .fasta import FastaReader, fasta_text
from .paf import Alignment

#: Aligned stretches are joined across so many unaligned bases, and have at least so many.
JOINED, LEAST = 200, 256
_TRAIN = "train"
#: By id: [UNK] stands for a base that the other genome lacks.
_LETTERS = np.frombuffer(b"NNNNNN-ACGTN", dtype=np.uint8)


@dataclass(frozen=True)
class RelativeFiles:
    """What was written of one genome.

    Attributes:
        fasta: what the other genome has in the place of each base.
        bed: the aligned stretches.
        bases: of the genome.
        aligned: bases with a partner.
        identical: those of them that are the same in the partner.
        deleted: bases that the other genome lacks.
        stretches: intervals to train on.
        stretch_bases: their bases.
    """

    fasta: Path
    bed: Path
    bases: int
    aligned: int
    identical: int
    deleted: int
    stretches: int
    stretch_bases: int


def write_relatives(
    readers: tuple[FastaReader, FastaReader],
    alignments: list[Alignment],
    folder: Path,
    split: Intervals | None = None,
) -> list[RelativeFiles]:
    """Write ``NAME.relative.fa`` and ``NAME.aligned.bed`` of both genomes.

    Args:
        readers: the genome (the query of the alignments) and its relative (the target).
        alignments: of the two, see `read_paf`.
        folder: where to write; made if need be.
        split: intervals of the genome, labelled train, valid or test. Those that are not train are kept in
            the genome's BED file, and the relative is told nothing of bases outside train.

    Raises:
        UserError: both files have one name, a split other than these, or no aligned stretch to train on.
    """
    names = [_name(reader.path) for reader in readers]
    if names[0] == names[1]:
        raise UserError(f"{readers[0].path} and {readers[1].path}: what is written would have one name; rename one")
    genome, relative = (
        PairedGenome({name: reader.fetch(name, 0, length) for name, length in reader.lengths.items()})
        for reader in readers
    )
    shown = None
    regions = [[(record, 0, length) for record, length in reader.lengths.items()] for reader in readers]
    held_out: list[tuple[str, int, int, str]] = []
    if split is not None:
        spans = zip(
            np.array(split.contigs)[split.contig].tolist(), split.start.tolist(), split.end.tolist(), strict=True
        )
        rows = [(*span, name) for span, name in zip(spans, column_split(split).tolist(), strict=True)]
        held_out = [row for row in rows if row[3] != _TRAIN]
        regions[0] = [row[:3] for row in rows if row[3] == _TRAIN]
        shown = np.zeros(len(genome.symbols), dtype=bool)
        for record, start, end in regions[0]:
            shown[genome.start[record] + start : genome.start[record] + end] = True
    pair_genomes(genome, relative, alignments, shown)
    return [
        _write(genome, relative, folder / names[0], regions[0], held_out),
        _write(relative, genome, folder / names[1], regions[1], []),
    ]


def _write(
    genome: PairedGenome,
    other: PairedGenome,
    path: Path,
    regions: list[tuple[str, int, int]],
    held_out: list[tuple[str, int, int, str]],
) -> RelativeFiles:
    symbols = genome.relative(other)
    known = symbols != N
    rows = []
    for record, start, end in regions:
        begin = genome.start[record] + start
        found = known_stretches(known[begin : begin + end - start], joined=JOINED, least=LEAST)
        rows += [(record, start + first, start + last, _TRAIN) for first, last in found]
    fasta, bed = path.with_name(path.name + ".relative.fa"), path.with_name(path.name + ".aligned.bed")
    if not rows:
        raise UserError(f"{bed}: no stretch of {LEAST} bases is aligned; are the two genomes related?")
    with replacing(fasta) as temporary, temporary.open("w", encoding="ascii") as stream:
        for record, sequence in genome.records.items():
            begin = genome.start[record]
            text = _LETTERS[symbols[begin : begin + len(sequence)]].tobytes().decode("ascii")
            stream.write(fasta_text(record, text))
    with replacing(bed) as temporary:
        lines = ["\t".join(map(str, row)) + "\n" for row in [*rows, *held_out]]
        temporary.write_text("".join(lines), encoding="utf-8")
    paired = genome.partner >= 0
    return RelativeFiles(
        fasta,
        bed,
        bases=len(symbols),
        aligned=int(paired.sum()),
        identical=int((symbols == genome.symbols)[paired].sum()),
        deleted=int((symbols == UNK).sum()),
        stretches=len(rows),
        stretch_bases=sum(end - start for _, start, end, _ in rows),
    )


def _name(path: Path) -> str:
    """The file's name without ``.gz`` and the ending before it."""
    name = path.name
    for ending in (".gz", ".bgz", ".fa", ".fna", ".fasta"):
        name = name.removesuffix(ending)
    return name
