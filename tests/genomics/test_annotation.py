"""GTF and GFF3."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from Bio.Seq import Seq
from variant_fixtures import KINDS, known_variants, sorted_parts, translated

from longscan.core.errors import UserError
from longscan.genomics.data.annotation import CodingSequence, Feature, coding_sequences, read_annotation
from longscan.genomics.data.fasta import FastaReader, open_fasta
from longscan.genomics.tokenizer import reverse_complement

GTF = "c1\tRefSeq\tCDS\t11\t20\t0.5\t-\t1\t" + (
    'gene_id "g;1"; transcript_id "t1"; tag "a"; tag "b"; exon_number 2; note "x \\"y\\"";'
)
GFF3 = "c%201\tRefSeq\tCDS\t11\t20\t.\t+\t0\tID=cds1;Parent=t1,t2;Note=a%3Bb%2Cc;Dbxref=X:1"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def fly() -> FastaReader:
    return open_fasta("embedded:drosophila4")


@pytest.fixture(scope="module")
def fly_features(golden: Path) -> list[Feature]:
    return list(read_annotation(golden / "genomics_annotation" / "drosophila_melanogaster_chr4.gtf.gz"))


@pytest.fixture(scope="module")
def codings(fly_features: list[Feature]) -> list[CodingSequence]:
    return coding_sequences(fly_features)


def test_a_gtf_row(tmp_path: Path) -> None:
    (row,) = read_annotation(write(tmp_path / "a.gtf", "#!x", "", GTF))
    assert row == Feature(
        "c1", "RefSeq", "CDS", 10, 20, 0.5, "-", 1,
        {"gene_id": ("g;1",), "transcript_id": ("t1",), "tag": ("a", "b"), "exon_number": ("2",),
         "note": ('x \\"y\\"',)},
        3,
    )  # fmt: skip
    assert row.attribute("tag") == "a"
    assert row.attribute("none") is None


def test_a_gff3_row(tmp_path: Path) -> None:
    """Escapes are undone after splitting, lists are split, and sequences at the end are not read as rows."""
    (row,) = read_annotation(write(tmp_path / "a.gff3", "##gff-version 3", GFF3, "##FASTA", ">c1", "ACGT"))
    assert (row.contig, row.start, row.end, row.score, row.phase) == ("c 1", 10, 20, None, 0)
    assert row.attributes == {"ID": ("cds1",), "Parent": ("t1", "t2"), "Note": ("a;b,c",), "Dbxref": ("X:1",)}
    assert [c.transcript for c in coding_sequences([row])] == ["t1", "t2"]


def test_gzip_and_the_format_from_the_first_line(tmp_path: Path) -> None:
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(f"##gff-version 3\n{GFF3}\n".encode()))
    assert [row.type for row in read_annotation(packed)] == ["CDS"]
    with pytest.raises(UserError, match=r"a\.txt: neither named"):
        list(read_annotation(write(tmp_path / "a.txt", GTF)))


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("a.gtf", 'gene_id "g;1"', "gene_id", r"a\.gtf:2: attribute 'gene_id; transcript_id"),
        ("a.gtf", '"g;1";', '"g;1"', r"a\.gtf:2: attribute"),
        ("a.gtf", "\tRefSeq", "", r"a\.gtf:2: 8 tab-separated column\(s\), GTF has 9"),
        ("a.gtf", "\t11\t", "\t0\t", r"a\.gtf:2: start '0'"),
        ("a.gtf", "\t11\t", "\t21\t", r"a\.gtf:2: start '21' and end '20'"),
        ("a.gtf", "\t-\t", "\tx\t", r"a\.gtf:2: strand 'x'"),
        ("a.gtf", "\t1\tg", "\t3\tg", r"a\.gtf:2: phase '3'"),
        ("a.gtf", "0.5", "high", r"a\.gtf:2: score 'high'"),
        ("a.gff3", "ID=cds1", "ID", r"a\.gff3:2: attribute 'ID'"),
        ("a.gff3", "ID=cds1", "ID=a=b", r"a\.gff3:2: attribute 'ID=a=b'"),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    row = GTF if name.endswith("gtf") else GFF3
    assert old in row
    with pytest.raises(UserError, match=message):
        list(read_annotation(write(tmp_path / name, "#", row.replace(old, new))))


def test_every_row_of_a_real_annotation(fly_features: list[Feature]) -> None:
    """Counts of the file's third column, by ``cut`` and ``uniq``."""
    counts = {kind: sum(row.type == kind for row in fly_features) for kind in ("CDS", "exon", "gene", "stop_codon")}
    assert counts == {"CDS": 2737, "exon": 3129, "gene": 114, "stop_codon": 299}
    assert len(fly_features) == 2737 + 3129 + 114 + 298 + 299 + 338


def test_coding_sequences_of_a_real_annotation_are_proteins(fly: FastaReader, codings: list[CodingSequence]) -> None:
    """In frame, from a start codon, without a stop, which a GTF leaves out and which follows in the genome."""
    assert len(codings) == 298
    assert {coding.strand for coding in codings} == {"+", "-"}
    stops = whole = 0
    for coding in codings:
        assert coding.in_frame
        bases = translated(fly, coding)
        assert len(coding.positions()) == len(bases)
        protein = str(Seq(bases[: len(bases) // 3 * 3]).translate())
        stops += "*" in protein
        whole += protein.startswith("M")
    assert stops <= 2
    assert whole >= 295


def test_positions_follow_the_strand(fly: FastaReader, codings: list[CodingSequence]) -> None:
    for strand in "+-":
        coding = next(c for c in codings if c.strand == strand and len(c.parts) > 2)
        single = [fly.fetch(coding.contig, p, p + 1).upper() for p in coding.positions()[:300]]
        bases = "".join(single if strand == "+" else map(reverse_complement, single))
        assert bases == translated(fly, coding)[:300]


def test_a_wrong_phase_is_noticed() -> None:
    def part(start: int, end: int, phase: int) -> Feature:
        return Feature("c", "", "CDS", start, end, None, "+", phase, {"transcript_id": ("t",)}, 1)

    assert coding_sequences([part(20, 30, 2), part(0, 10, 0)])[0].in_frame  # 10 bases leave 1 of a codon, 2 are due
    assert not coding_sequences([part(20, 30, 1), part(0, 10, 0)])[0].in_frame
    assert coding_sequences([part(20, 30, 0), part(0, 10, 1)])[0].in_frame  # the first begins within a codon


def test_generated_variants_do_what_they_claim(fly: FastaReader, codings: list[CodingSequence]) -> None:
    """By mutating the genome and translating the whole coding sequence."""
    variants = known_variants(fly, codings, per_kind=15, seed=3)
    assert variants == known_variants(fly, codings, per_kind=15, seed=3)
    assert len(variants) == 15 * len(KINDS)
    for variant in variants:
        coding, start = variant.coding, variant.pos - 1
        assert fly.fetch(variant.contig, start, start + len(variant.ref)).upper() == variant.ref
        proteins, kept = [], []
        for allele in (variant.ref, variant.alt):
            pieces = []
            for part in sorted_parts(coding):
                text = fly.fetch(coding.contig, part.start, part.end).upper()
                if part.start <= start < part.end:
                    offset = start - part.start
                    text = text[:offset] + allele + text[offset + len(variant.ref) :]
                pieces.append(text)
            kept.append(sum(map(len, pieces)))
            bases = "".join(pieces) if coding.strand == "+" else reverse_complement("".join(pieces))
            bases = bases[coding.parts[0].phase or 0 :]
            proteins.append(str(Seq(bases[: len(bases) // 3 * 3]).translate()))
        before, after = proteins
        if variant.kind == "synonymous":
            assert before == after
        elif variant.kind == "missense":
            assert "*" not in after[: len(before)] or "*" in before
            assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        elif variant.kind == "stop_gained":
            assert after.count("*") == before.count("*") + 1
        elif variant.kind == "splice":
            assert before == after  # not in any CDS part, but at an intron's first or last two bases
            edges = [e for part in coding.parts for e in (part.end, part.end + 1, part.start - 1, part.start - 2)]
            assert start in edges
        else:
            assert kept[1] - kept[0] == len(variant.alt) - len(variant.ref) != 0
