"""A VCF with variants of known consequence, made from a genome and its annotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from Bio.Data.CodonTable import standard_dna_table

from longscan.genomics.data.annotation import CodingSequence
from longscan.genomics.data.fasta import FastaReader
from longscan.genomics.tokenizer import reverse_complement

KINDS = ("synonymous", "missense", "stop_gained", "splice", "insertion", "deletion")
_CODONS = {**standard_dna_table.forward_table, **dict.fromkeys(standard_dna_table.stop_codons, "*")}


@dataclass(frozen=True)
class KnownVariant:
    """A variant and what it does: ``pos`` is 1-based; ``coding`` the CDS that it was made for."""

    contig: str
    pos: int
    ref: str
    alt: str
    kind: str
    coding: CodingSequence


def translated(fasta: FastaReader, coding: CodingSequence) -> str:
    """Return the coding strand's bases from the first whole codon on."""
    bases = "".join(fasta.fetch(part.contig, part.start, part.end).upper() for part in sorted_parts(coding))
    bases = bases if coding.strand == "+" else reverse_complement(bases)
    return bases[coding.parts[0].phase or 0 :]


def sorted_parts(coding: CodingSequence) -> list:
    """Return the parts from left to right on the genome."""
    return sorted(coding.parts, key=lambda part: part.start)


def known_variants(
    fasta: FastaReader, codings: Sequence[CodingSequence], per_kind: int, seed: int = 0
) -> list[KnownVariant]:
    """Return ``per_kind`` variants of each of `KINDS`, no two at one position, sorted; the same for the same seed."""
    generator = np.random.default_rng(seed)
    usable = [coding for coding in codings if coding.in_frame and len(coding.positions()) >= 60]
    found: dict[int, KnownVariant] = {}
    for kind in KINDS:
        count = 0
        while count < per_kind:
            coding = usable[generator.integers(len(usable))]
            variant = _draw(kind, fasta, coding, generator)
            if variant is not None and variant.pos not in found:
                found[variant.pos] = variant
                count += 1
    return [found[pos] for pos in sorted(found)]


def _draw(kind: str, fasta: FastaReader, coding: CodingSequence, generator: np.random.Generator) -> KnownVariant | None:
    if kind == "splice":
        parts = sorted_parts(coding)
        if len(parts) < 2:
            return None
        k = int(generator.integers(len(parts) - 1))
        intron = (parts[k].end, parts[k + 1].start)
        if intron[1] - intron[0] < 30:
            return None
        position = int([intron[0], intron[0] + 1, intron[1] - 2, intron[1] - 1][generator.integers(4)])
        ref = fasta.fetch(coding.contig, position, position + 1).upper()
        alt = str(generator.choice([base for base in "ACGT" if base != ref]))
        return KnownVariant(coding.contig, position + 1, ref, alt, kind, coding)
    if kind in ("insertion", "deletion"):
        part = coding.parts[generator.integers(len(coding.parts))]
        if part.end - part.start < 20:
            return None
        position, size = int(generator.integers(part.start + 1, part.end - 8)), int(generator.integers(1, 6))
        ref = fasta.fetch(coding.contig, position, position + (size + 1 if kind == "deletion" else 1)).upper()
        alt = ref[0] if kind == "deletion" else ref + "".join(generator.choice(list("ACGT"), size))
        return KnownVariant(coding.contig, position + 1, ref, alt, kind, coding)
    positions, bases = coding.positions(), translated(fasta, coding)
    codon = int(generator.integers(1, len(bases) // 3))
    place = int(generator.integers(3))
    before = bases[3 * codon : 3 * codon + 3]
    alt = str(generator.choice([base for base in "ACGT" if base != before[place]]))
    after = before[:place] + alt + before[place + 1 :]
    amino, changed = _CODONS.get(before), _CODONS.get(after)
    if amino in (None, "*"):
        return None
    if kind != ("synonymous" if amino == changed else "stop_gained" if changed == "*" else "missense"):
        return None
    ref = before[place]
    if coding.strand == "-":
        ref, alt = reverse_complement(ref), reverse_complement(alt)
    return KnownVariant(coding.contig, int(positions[3 * codon + place]) + 1, ref, alt, kind, coding)


def write_vcf(
    path: Path,
    rows: Sequence[tuple],
    *,
    samples: Sequence[str] = (),
    contigs: Sequence[tuple[str, int]] = (),
) -> Path:
    """Write a VCF; a row is (contig, pos, ref, alts) or (contig, pos, ref, alts, info)."""
    lines = ["##fileformat=VCFv4.2", '##FILTER=<ID=q10,Description="Quality below 10">']
    lines += [f"##contig=<ID={name},length={length}>" for name, length in contigs]
    lines += [
        '##INFO=<ID=KIND,Number=1,Type=String,Description="Consequence">',
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
    ]
    tail = ["FORMAT", *samples] if samples else []
    lines.append("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", *tail]))
    for number, (contig, pos, ref, alts, *info) in enumerate(rows, start=1):
        genotypes = ["GT", *(["0/1"] * len(samples))] if samples else []
        quality = "1e1" if number % 2 else "."
        cells = [contig, str(pos), f"v{number}", ref, alts, quality, "PASS", *(info or ["."]), *genotypes]
        lines.append("\t".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def small_genome(path: Path) -> dict[str, str]:
    """Write a FASTA of three contigs and return their sequences in upper case: c1 of 300 known bases, the second
    hundred in lower case; c2 with 60 N before and after 40 bases; c3 of N alone."""
    generator = np.random.default_rng(11)
    first = "".join(generator.choice(list("ACGT"), 300))
    second = "N" * 60 + "".join(generator.choice(list("ACGT"), 40)) + "N" * 60
    sequences = {"c1": first[:100] + first[100:200].lower() + first[200:], "c2": second, "c3": "N" * 90}
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in sequences.items()))
    return {name: bases.upper() for name, bases in sequences.items()}


def other(base: str, step: int = 1) -> str:
    """Return another base."""
    return "ACGT"[("ACGT".index(base) + step) % 4]
