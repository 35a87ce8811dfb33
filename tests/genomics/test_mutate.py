"""``longscan genomics mutate``."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from variant_fixtures import small_genome, write_vcf

import longscan
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement
from longscan.genomics.variants.heat_map import write_heat_map

Command = Callable[[str], Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    small = {"d_model": 16, "n_layer": 2}
    longscan.create_model("caduceus_ph_1k_d118", **small).save_pretrained(folder / "ph")
    for name in ("ph", "ps"):
        head = {"head": "classification", "class_names": ("no", "donor")}
        model = longscan.create_model(f"caduceus_{name}_1k_d118", **small, **head)
        with torch.no_grad():
            model.head.output.weight.mul_(50)
        model.save_pretrained(folder / f"{name}_classifier")
    return folder


@pytest.fixture
def genome(tmp_path: Path) -> dict[str, str]:
    return small_genome(tmp_path / "genome.fa")


def table(path: str) -> list[dict[str, str]]:
    with open(path) as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_every_substitution_scores_as_in_a_vcf(
    command: Command, models: Path, genome: dict[str, str], tmp_path: Path
) -> None:
    """The same rows and scores as score-variants gives for a VCF with all of them."""
    common = f"--model {models / 'ph'} --fasta genome.fa --window 32 --device cpu"
    outcome = command(f"genomics mutate {common} --region chrc1:1-4,0 --output out.tsv")
    assert outcome.status == 0, outcome.err
    assert outcome.out == "c1:1-40: 120 substitutions scored, 0 skipped\nwrote out.tsv and out.png\n"
    rows = table("out.tsv")
    expected = [
        (str(p), base, alt) for p, base in enumerate(genome["c1"][:40], start=1) for alt in "ACGT" if alt != base
    ]
    assert [(row["pos"], row["ref"], row["alt"]) for row in rows] == expected
    vcf = write_vcf(tmp_path / "all.vcf", [("c1", *row) for row in expected])
    assert command(f"genomics score-variants {common} --vcf {vcf} --output vcf.tsv").status == 0
    for mine, other in zip(rows, table("vcf.tsv"), strict=True):
        assert mine["status"] == other["status"] == "scored"
        assert float(mine["log_likelihood_ratio"]) == pytest.approx(float(other["log_likelihood_ratio"]), abs=1e-5)
        for name in ("llr_forward", "llr_reverse", "method", "n_bases", "model", "revision", "window", "strand"):
            assert mine[name] == other[name] or name.startswith("llr")
    picture = imread("out.png")
    assert picture.shape[1] > picture.shape[0] > 200


def test_n_is_skipped_and_says_so(command: Command, models: Path, genome: dict[str, str]) -> None:
    line = f"genomics mutate --model {models / 'ph'} --fasta genome.fa --window 32 --device cpu --max-n 0.6"
    outcome = command(f"{line} --region c2:59-62 --output out.tsv --plot picture.png")
    assert outcome.status == 0, outcome.err
    assert outcome.out == "c2:59-62: 6 substitutions scored, 8 skipped\nwrote out.tsv and picture.png\n"
    rows = table("out.tsv")
    assert [row["status"] for row in rows] == ["ambiguous"] * 8 + ["scored"] * 6
    assert not any(row["log_likelihood_ratio"] for row in rows[:8])
    assert Path("picture.png").exists()


@pytest.mark.parametrize("name", ["ph_classifier", "ps_classifier"])
def test_a_classifier_compares_probabilities(command: Command, models: Path, genome: dict[str, str], name: str) -> None:
    line = f"genomics mutate --model {models / name} --fasta genome.fa --window 32 --device cpu --batch-size 5"
    outcome = command(f"{line} --region c1:100-103 --class donor --output out.tsv")
    assert outcome.status == 0, outcome.err
    rows, model = table("out.tsv"), longscan.from_pretrained(str(models / name)).eval()

    def probability(text: str) -> float:
        ids = torch.from_numpy(DNATokenizer().encode(text, add_special_tokens=False))[None]
        with torch.no_grad():
            return float(model(ids).softmax(-1)[0, 1])

    assert len(rows) == 12
    for row in rows:
        p = int(row["pos"])
        ref = genome["c1"][p - 17 : p + 15]
        alt = ref[:16] + row["alt"] + ref[17:]
        forward = probability(alt) - probability(ref)
        reverse = probability(reverse_complement(alt)) - probability(reverse_complement(ref))
        assert abs(forward) > 1e-6
        assert float(row["change_forward"]) == pytest.approx(forward, abs=1e-6)
        assert float(row["change_reverse"]) == pytest.approx(reverse, abs=1e-6)
        assert float(row["probability_change"]) == pytest.approx((forward + reverse) / 2, abs=1e-6)
        assert (row["method"], row["class"]) == ("class_probability", "donor")


def test_the_heat_map_shows_signs_and_reference(tmp_path: Path) -> None:
    """Blue above zero, red below, in the row of the base: three columns, one strong effect in each of two."""
    effects = np.full((4, 3), 0.0)
    effects[0, 0], effects[3, 1] = 1.0, -1.0
    write_heat_map(tmp_path / "a.png", effects, "CGA", 1_000_001, "title", "label")
    picture = imread(tmp_path / "a.png")[..., :3]
    height, width = picture.shape[:2]
    inner = picture[:, : int(0.75 * width)]  # without the colour bar
    blue = np.argwhere((inner[..., 2] > inner[..., 0] + 0.25) & (inner[..., 0] < 0.1)).mean(0)
    red = np.argwhere((inner[..., 0] > inner[..., 2] + 0.25) & (inner[..., 1] < 0.1)).mean(0)
    assert blue[0] < red[0]  # A is above T
    assert blue[1] < red[1]
    assert height > 100


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--region c1", "--region c1: is not of the form contig:start-end"),
        ("--region c1:5", "--region c1:5: is not of the form contig:start-end"),
        ("--region c1:,-8", "--region c1:,-8: is not of the form contig:start-end"),
        ("--region c1:9-8", "--region c1:9-8: c1 has the bases 1 to 300"),
        ("--region c1:0-8", "--region c1:0-8: c1 has the bases 1 to 300"),
        ("--region c1:290-301", "--region c1:290-301: c1 has the bases 1 to 300"),
        ("--region c8:1-2", "--region c8:1-2: contig 'c8' is not in"),
        ("--region c1:1-2 --output out.vcf", "--output out.vcf: is a table; name it .tsv or .tsv.gz"),
        ("--region c1:1-2 --plot a.svg", "--plot a.svg: is a PNG"),
        ("--region c1:1-2 --class donor", "--class donor: {ph} is a language model; leave it out"),
        ("--region c1:1-2 --model {ph}_classifier", "say with --class whose probability to compare"),
        ("--region c1:1-2 --model {ph}_classifier --class door", "has no such class (nearest: donor"),
    ],
)
def test_mistakes(command: Command, models: Path, genome: dict[str, str], arguments: str, message: str) -> None:
    ph = models / "ph"
    arguments = arguments.format(ph=ph)
    outcome = command(f"genomics mutate --model {ph} --fasta genome.fa --output out.tsv --device cpu {arguments}")
    assert outcome.status == 2
    assert message.format(ph=ph) in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(Path().glob("*out*"))
