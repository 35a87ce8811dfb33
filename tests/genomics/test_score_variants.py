"""``longscan genomics score-variants``."""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
import torch
from variant_fixtures import KINDS, known_variants, other, small_genome, write_vcf

import longscan
from longscan.core.errors import UserError
from longscan.genomics.data.annotation import coding_sequences, read_annotation
from longscan.genomics.data.fasta import open_fasta
from longscan.genomics.data.variants import Variant, count_alts
from longscan.genomics.inference import prepare
from longscan.genomics.variants import output as output_module
from longscan.genomics.variants.output import open_output
from longscan.genomics.variants.scores import VariantScorer

Command = Callable[[str], Any]
OPTIONS = "--window 32 --device cpu --batch-size 4"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of tiny models: ps, ph, hyena, classifier."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    small = {"d_model": 16, "n_layer": 2}
    longscan.create_model("caduceus_ps_1k_d118", **small).save_pretrained(folder / "ps")
    longscan.create_model("caduceus_ph_1k_d118", **small).save_pretrained(folder / "ph")
    longscan.create_model("hyenadna_tiny_1k", **small, max_length=130).save_pretrained(folder / "hyena")
    head = {"head": "classification", "num_classes": 2}
    longscan.create_model("caduceus_ph_1k_d118", **small, **head).save_pretrained(folder / "classifier")
    return folder


@pytest.fixture
def genome(tmp_path: Path) -> dict[str, str]:
    return small_genome(tmp_path / "genome.fa")


@pytest.fixture
def mixed(tmp_path: Path, genome: dict[str, str]) -> Path:
    """A VCF with samples and every status."""
    c1, c2 = genome["c1"], genome["c2"]
    rows = [
        ("c1", 1, c1[0], other(c1[0])),
        ("chrc1", 100, c1[99], f"{other(c1[99])},<DEL>,*,{c1[99]}GG"),
        ("c1", 100, c1[99], ".", "KIND=none"),
        ("c1", 120, other(c1[119]), c1[119]),
        ("c1", 130, c1[129:133], f"{c1[129]},{c1[129]}[c2:3[,{c1[129:133].lower()},N"),
        ("c1", 140, c1[139], c1[139] + "A" * 16),
        ("c2", 61, c2[60], other(c2[60]), "KIND=edge;END=61"),
        ("c3", 40, "N", "A"),
    ]
    return write_vcf(tmp_path / "mixed.vcf", rows, samples=("s1", "s2"), contigs=[("c1", 300), ("c2", 160)])


STATUSES = {
    "scored": 5, "symbolic": 1, "star": 1, "missing": 1, "ref_mismatch": 1, "breakend": 1, "identical": 1,
    "ambiguous": 1, "too_long": 1, "too_many_n": 1,
}  # fmt: skip


def score(command: Command, model: Path, vcf: Path, output: str, more: str = "") -> Any:
    """Run the command on the small genome."""
    return command(
        f"genomics score-variants --model {model} --vcf {vcf} --fasta genome.fa --output {output} {OPTIONS} {more}"
    )


def table(path: str) -> list[dict[str, str]]:
    packed = path.endswith(".gz")
    with gzip.open(path, "rt") if packed else open(path) as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_every_alternative_has_a_row_with_a_status(command: Command, models: Path, mixed: Path) -> None:
    outcome = score(command, models / "ph", mixed, "out.tsv", "--embedding-distance both")
    assert outcome.status == 0, outcome.err
    rows = table("out.tsv")
    with pysam.VariantFile(str(mixed)) as vcf:
        asked = [(r.contig, str(r.pos), r.id, r.ref, alt) for r in vcf for alt in r.alts or (".",)]
    assert [(r["contig"], r["pos"], r["id"], r["ref"], r["alt"]) for r in rows] == asked
    assert Counter(row["status"] for row in rows) == STATUSES
    for row in rows:
        numbers = [row[name] for name in ("log_likelihood_ratio", "llr_forward", "llr_reverse", "l2_distance")]
        assert all(numbers) if row["status"] == "scored" else not any([*numbers, row["method"]])
        assert (row["model"], row["window"], row["strand"]) == (str(models / "ph"), "32", "both")
        assert row["embedding_window"] == "1536"
        assert re.fullmatch(r"[0-9a-f]{12}", row["revision"])
    assert Counter(row["method"] for row in rows) == {"masked": 3, "unmasked_sum": 2, "": 9}
    assert [rows[0]["n_bases"], rows[1]["n_bases"], rows[-2]["n_bases"], rows[-1]["n_bases"]] == ["16", "0", "16", "32"]

    printed = dict(re.findall(r"^(\w+) +([\d,]+) +\S", outcome.out, re.MULTILINE))
    assert {name: int(count) for name, count in printed.items()} == STATUSES | {"all": sum(STATUSES.values())}
    assert re.search(r"14 variants in [\d.]+ s \([\d,]+ variants/s\)\nwrote out.tsv\n", outcome.out)


def test_scores_are_those_of_the_engine(command: Command, models: Path, mixed: Path, genome: dict[str, str]) -> None:
    assert score(command, models / "hyena", mixed, "out.tsv", "--strand reverse").status == 0
    row = table("out.tsv")[1]
    model = prepare(longscan.from_pretrained(str(models / "hyena")), "hyena")
    scorer = VariantScorer(model, open_fasta("genome.fa"), window=32, strand="reverse")
    base = genome["c1"][99]
    expected = scorer.score([Variant("c1", 100, base, other(base))]).score[0]
    assert float(row["llr_reverse"]) == float(row["log_likelihood_ratio"]) == pytest.approx(expected, abs=1e-5)
    assert (row["llr_forward"], row["method"], row["revision"]) == ("", "causal", model.revision)


def test_with_ref_in_sight(command: Command, models: Path, mixed: Path, genome: dict[str, str]) -> None:
    assert score(command, models / "ph", mixed, "out.tsv", "--unmasked").status == 0
    rows = table("out.tsv")
    assert Counter(row["method"] for row in rows) == {"unmasked": 3, "unmasked_sum": 2, "": 9}
    row = next(row for row in rows if row["method"] == "unmasked")
    model = prepare(longscan.from_pretrained(str(models / "ph")), "ph")
    scorer = VariantScorer(model, open_fasta("genome.fa"), window=32, masked=False)
    expected = scorer.score([Variant(row["contig"], int(row["pos"]), row["ref"], row["alt"])]).score[0]
    assert float(row["log_likelihood_ratio"]) == pytest.approx(expected, abs=1e-5)
    line = f"genomics mutate --model {models}/ph --fasta genome.fa --region c1:100-102 --output m.tsv {OPTIONS}"
    assert command(f"{line} --unmasked").status == 0
    assert {row["method"] for row in table("m.tsv")} == {"unmasked"}
    outcome = score(command, models / "hyena", mixed, "out2.tsv", "--unmasked")
    assert outcome.status == 2
    assert "--unmasked: is for masked language models" in outcome.err


def test_vcf_keeps_every_record_and_field(command: Command, models: Path, mixed: Path) -> None:
    """Compared line by line without the new fields, and read back by htslib."""
    assert score(command, models / "ph", mixed, "out.vcf.gz", "--embedding-distance cosine").status == 0
    assert score(command, models / "ph", mixed, "out.tsv", "--embedding-distance cosine").status == 0
    with gzip.open("out.vcf.gz", "rt") as stream:
        written = stream.read().splitlines()
    before = mixed.read_text().splitlines()
    kept = [line for line in written if "LONGSCAN_" not in line and not line.startswith("##longscan")]
    assert kept == [line for line in before if line.startswith("#")]
    bare = []
    for line in (line for line in written if not line.startswith("#")):
        fields = line.split("\t")
        fields[7] = ";".join(part for part in fields[7].split(";") if "LONGSCAN_" not in part) or "."
        bare.append("\t".join(fields))
    assert bare == [line for line in before if not line.startswith("#")]

    rows = iter(table("out.tsv"))
    with pysam.VariantFile(str(mixed)) as old, pysam.VariantFile("out.vcf.gz") as new:
        assert list(new.header.samples) == ["s1", "s2"]
        records = list(zip(old, new, strict=True))
        assert len(records) == 8
        for was, now in records:
            assert (was.contig, was.pos, was.id, was.ref, was.alts) == (now.contig, now.pos, now.id, now.ref, now.alts)
            assert [s["GT"] for s in now.samples.values()] == [s["GT"] for s in was.samples.values()]
            assert was.info.get("KIND") == now.info.get("KIND")
            mine = [next(rows) for _ in was.alts or (".",)]
            assert now.info["LONGSCAN_STATUS"] == tuple(row["status"] for row in mine)
            assert str(now.info["LONGSCAN_N_BASES"]) == mine[0]["n_bases"]
            if was.alts is None:
                assert "LONGSCAN_LLR" not in now.info
                continue
            names = {"LLR": "log_likelihood_ratio", "LLR_REVERSE": "llr_reverse", "COSINE": "cosine_distance"}
            for name, column in names.items():
                values = now.info[f"LONGSCAN_{name}"]
                assert len(values) == len(mine)
                for value, row in zip(values, mine, strict=True):
                    assert (value is None) == (row["status"] != "scored")
                    assert value is None or value == pytest.approx(float(row[column]), rel=1e-5)
        lines = [str(line) for line in new.header.records if line.key == "longscan"]
    revision = next(iter(table("out.tsv")))["revision"]
    assert lines == [
        f'##longscan=<ID=score-variants,model="{models / "ph"}",revision={revision},window=32,strand=both,'
        "embedding_window=1536>\n"
    ]


def test_scoring_a_scored_vcf_again_replaces_the_scores(command: Command, models: Path, mixed: Path) -> None:
    assert score(command, models / "ph", mixed, "first.vcf", "--embedding-distance l2").status == 0
    assert score(command, models / "ps", Path("first.vcf"), "again.vcf").status == 0
    assert score(command, models / "ps", mixed, "straight.vcf").status == 0
    assert Path("again.vcf").read_text() == Path("straight.vcf").read_text()
    assert "embedding_window" not in Path("straight.vcf").read_text()  # no distance was asked for


def test_compression_of_input_and_output_changes_nothing(command: Command, models: Path, mixed: Path) -> None:
    pysam.tabix_compress(str(mixed), "bgzip.vcf.gz")
    Path("gzip.vcf.gz").write_bytes(gzip.compress(mixed.read_bytes()))
    assert score(command, models / "ps", mixed, "plain.tsv").status == 0
    for name in ("bgzip", "gzip"):
        assert score(command, models / "ps", Path(f"{name}.vcf.gz"), f"{name}.tsv.gz").status == 0
        assert gzip.decompress(Path(f"{name}.tsv.gz").read_bytes()) == Path("plain.tsv").read_bytes()
    with pysam.BGZFile("bgzip.tsv.gz") as packed:
        assert packed.read(6) == b"contig"


def test_a_file_longer_than_a_piece(
    command: Command, models: Path, genome: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows do not depend on where the pieces end."""
    c1 = genome["c1"]
    rows = [("c1", p, c1[p - 1], f"{other(c1[p - 1])},{other(c1[p - 1], 2)}") for p in range(40, 101)]
    vcf = write_vcf(tmp_path / "many.vcf", rows)
    assert score(command, models / "ph", vcf, "whole.tsv").status == 0
    monkeypatch.setattr(VariantScorer, "chunk", 7)
    assert score(command, models / "ph", vcf, "pieces.tsv").status == 0
    whole, pieces = table("whole.tsv"), table("pieces.tsv")
    assert len(whole) == len(pieces) == 122
    for one, other_row in zip(whole, pieces, strict=True):
        assert float(one.pop("log_likelihood_ratio")) == pytest.approx(
            float(other_row.pop("log_likelihood_ratio")), abs=1e-5
        )
        assert one["pos"] == other_row["pos"]


def test_nothing_to_score(command: Command, models: Path, genome: dict[str, str], tmp_path: Path) -> None:
    vcf = write_vcf(tmp_path / "empty.vcf", [])
    for output, lines in (("out.tsv", 1), ("out.vcf", len(vcf.read_text().splitlines()) + 7)):
        outcome = score(command, models / "ph", vcf, output)
        assert outcome.status == 0
        assert f"{vcf}: holds no record\nwrote {output}\n" == outcome.out
        assert len(Path(output).read_text().splitlines()) == lines


def test_the_wrong_genome(command: Command, models: Path, genome: dict[str, str], tmp_path: Path) -> None:
    """3 of 20 differ, which is more than a tenth; of 9 compared none is enough to judge by."""
    c1 = genome["c1"]
    rows = [("c1", p, other(c1[p - 1]) if p % 7 == 0 else c1[p - 1], other(c1[p - 1], 2)) for p in range(41, 61)]
    vcf = write_vcf(tmp_path / "other.vcf", rows)
    outcome = score(command, models / "ph", vcf, "out.tsv")
    assert outcome.status == 2
    assert "other.vcf: REF differs from genome.fa in 3 of 20 variants (15%); wrong genome build?" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("out.tsv").exists()
    outcome = score(command, models / "ph", vcf, "out.tsv", "--max-ref-mismatch 0.15")
    assert outcome.status == 0
    assert Counter(row["status"] for row in table("out.tsv")) == {"scored": 17, "ref_mismatch": 3}
    few = write_vcf(tmp_path / "few.vcf", [("c1", p, other(c1[p - 1]), c1[p - 1]) for p in range(41, 50)])
    assert score(command, models / "ph", few, "few.tsv").status == 0


@pytest.mark.parametrize(
    "rows, more, message",
    [
        ([("c1", 301, "A", "C")], "", "bad.vcf:6: record 1: c1:301 is not on contig 'c1', which has 300 bases"),
        ([("c7", 1, "A", "C")], "", "bad.vcf:6: record 1: contig 'c7' is not in"),
        ([("c1", 9, "A", "C"), ("c1", 8, "A", "C")], "", "bad.vcf:7: record 2: c1:8 comes after c1:9"),
        ([], "--window 2000 --model {hyena}", "--window: 2000 bases are more than"),
        ([], "--model {classifier}", "has a classification head; likelihoods need a language model"),
        ([], "--output out.txt", "--output out.txt: the ending says the format; use .tsv, .tsv.gz, .vcf or .vcf.gz"),
        ([], "--max-ref-mismatch 2", "--max-ref-mismatch 2: is a share, from 0 to 1"),
        ([], "--max-n -1", "--max-n -1: is a share"),
        ([], "--embedding-window 0", "--embedding-window 0: must be at least 1"),
        ([], "--aliases none.txt", "none.txt: no such file"),
    ],
)
def test_mistakes(
    command: Command, models: Path, genome: dict[str, str], tmp_path: Path, rows: list[tuple], more: str, message: str
) -> None:
    vcf = write_vcf(tmp_path / "bad.vcf", rows)
    more = more.format(hyena=models / "hyena", classifier=models / "classifier")
    outcome = score(command, models / "ph", vcf, "out.tsv", more)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(Path().glob("*out*"))


def test_unsorted_and_aliases_on_request(
    command: Command, models: Path, genome: dict[str, str], tmp_path: Path
) -> None:
    c1 = genome["c1"]
    rows = [("one", p, c1[p - 1], other(c1[p - 1])) for p in (50, 40)]
    vcf = write_vcf(tmp_path / "odd.vcf", rows)
    Path("aliases.txt").write_text("one\tc1\n")
    assert score(command, models / "ph", vcf, "out.tsv", "--aliases aliases.txt").status == 2
    assert score(command, models / "ph", vcf, "out.tsv", "--aliases aliases.txt --allow-unsorted").status == 0
    assert [(row["contig"], row["pos"], row["status"]) for row in table("out.tsv")] == [
        ("one", "50", "scored"), ("one", "40", "scored"),
    ]  # fmt: skip


def test_variants_of_a_real_genome(command: Command, models: Path, golden: Path, tmp_path: Path) -> None:
    """Made from genes of a fly, all with REF as in the genome; the contig under another name."""
    fasta = open_fasta("embedded:drosophila4")
    annotation = golden / "genomics_annotation" / "drosophila_melanogaster_chr4.gtf.gz"
    known = known_variants(fasta, coding_sequences(read_annotation(annotation)), per_kind=8, seed=1)
    vcf = write_vcf(tmp_path / "fly.vcf", [("chr4", v.pos, v.ref, v.alt, f"KIND={v.kind}") for v in known])
    line = f"genomics score-variants --model {models / 'ps'} --vcf {vcf} --fasta embedded:drosophila4 {OPTIONS}"
    outcome = command(f"{line} --output fly.vcf.gz")
    assert outcome.status == 0, outcome.err
    with pysam.VariantFile("fly.vcf.gz") as records:
        found = [(r.info["KIND"], r.info["LONGSCAN_METHOD"][0], r.info["LONGSCAN_LLR"][0]) for r in records]
    assert Counter(kind for kind, _, _ in found) == dict.fromkeys(KINDS, 8)
    assert all((method == "unmasked_sum") == (kind in ("insertion", "deletion")) for kind, method, _ in found)
    assert np.isfinite([llr for _, _, llr in found]).all()


def test_only_what_writing_meets_is_blamed_on_the_output(tmp_path: Path) -> None:
    """An OSError of the block is no failure to write; nothing is left either way."""
    with pytest.raises(FileNotFoundError, match="genome"), open_output(tmp_path / "a.tsv"):
        (tmp_path / "genome").read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), open_output(tmp_path / "file" / "a.tsv"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(output_module, "replacing", lambda path: contextlib.nullcontext(Path("/dev/full")))
    with (
        pytest.raises(UserError, match=r"a\.tsv: cannot be written \(No space left on device\)"),
        open_output("a.tsv") as write,
    ):
        write("x" * 100_000)


def test_alternatives_are_counted_for_the_bar(mixed: Path, command: Command, models: Path) -> None:
    outcome = score(command, models / "ph", mixed, "a.tsv", "--max-ref-mismatch 1")
    assert outcome.status == 0, outcome.err
    assert count_alts(mixed) == len(Path("a.tsv").read_text().splitlines()) - 1
