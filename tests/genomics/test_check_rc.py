"""``longscan genomics check-rc``: how far a model is from treating both strands alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.genomics.data.fasta import open_fasta
from longscan.genomics.data.items import SequenceReader
from longscan.genomics.inference import DNAModel, prepare
from longscan.genomics.strand_symmetry import draw_windows, log_likelihoods, measure
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement_ids


def build(name: str, **options: Any) -> DNAModel:
    torch.manual_seed(0)
    return prepare(longscan.create_model(name, **{"d_model": 16, "n_layer": 2, **options}), name)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return draw_windows(SequenceReader(open_fasta("embedded:yeast1"), DNATokenizer()), 200, 6, 0)


def test_an_equivariant_model_is_exact_and_others_are_not(windows: np.ndarray) -> None:
    exact = measure(build("caduceus_ps_1k_d118"), windows)
    assert exact[0].quantity == "logits at each position"
    assert exact[0].checked
    assert exact[0].relative < 1e-5
    assert exact[0].count == 6 * 200 * 16
    assert exact[1].relative > 0.01  # one strand's half of the hidden sequence
    assert exact[2].relative < 1e-5
    other = measure(build("caduceus_ph_1k_d118"), windows)
    assert other[0].relative > 0.1
    assert other[2].relative < 1e-5


def test_the_numbers_are_those_of_the_definition(windows: np.ndarray) -> None:
    model = build("caduceus_ph_1k_d118")
    complement = [*range(7), 10, 9, 8, 7, *range(11, 16)]
    forward = model.logits(windows)
    back = model.logits(reverse_complement_ids(windows)).flip(1)[..., complement]
    found = measure(model, windows, batch_size=4)[0]
    assert found.maximum == pytest.approx(float((forward - back).abs().max()), rel=1e-5)
    assert found.mean == pytest.approx(float((forward - back).abs().mean()), rel=1e-5)
    assert found.scale == pytest.approx(float(torch.maximum(forward.abs(), back.abs()).max()), rel=1e-5)
    assert found.relative == pytest.approx(found.maximum / found.scale)


def test_a_causal_model_is_judged_by_its_likelihoods(windows: np.ndarray) -> None:
    model = build("hyenadna_tiny_1k", max_length=256)
    found = measure(model, windows)[0]
    assert found.quantity == "log-likelihood of a window"
    totals = []
    for ids in (windows, reverse_complement_ids(windows)):
        probabilities = model.logits(ids).log_softmax(-1)
        picked = [[probabilities[b, t, ids[b, t + 1]].item() for t in range(199)] for b in range(6)]
        totals.append(np.sum(picked, axis=1))
        np.testing.assert_allclose(log_likelihoods(model, ids).numpy(), picked, atol=1e-5)
    assert found.maximum == pytest.approx(np.abs(totals[0] - totals[1]).max(), rel=1e-3)
    assert found.count == 6


def test_classifiers(windows: np.ndarray) -> None:
    head: dict[str, Any] = {"head": "classification", "num_classes": 2, "class_names": ("a", "b")}
    for options in ({"rcps": True}, {"conjoin": True}):
        found = measure(build("caduceus_ph_1k_d118", **head, **options), windows)
        assert found[0].quantity == "class logits"
        assert found[0].relative < 1e-5
    found = measure(build("caduceus_ph_1k_d118", **head), windows)
    assert found[0].relative > 1e-3
    assert found[1].quantity == "class logits, with special tokens (sep)"


def test_windows_are_drawn_by_seed_and_hold_nucleotides(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">a\n" + "N" * 900 + "ACGT" * 30 + "\n>b\nACG\n")
    reader = SequenceReader(open_fasta(tmp_path / "g.fa"), DNATokenizer())
    first, again, other = (draw_windows(reader, 20, 5, seed) for seed in (0, 0, 1))
    assert first.shape == (5, 20)
    assert (first == again).all()
    assert (first != other).any()
    assert ((first != 11).mean(1) >= 0.5).all()
    with pytest.raises(UserError, match=r"no record has 2000 bases, the longest has 1020; lower --window"):
        draw_windows(reader, 2000, 5, 0)
    with pytest.raises(UserError, match="--windows 0: must be at least 1"):
        draw_windows(reader, 20, 0, 0)
    (tmp_path / "n.fa").write_text(">a\n" + "N" * 900 + "\n")
    with pytest.raises(UserError, match="nearly every window of 20 bases is more than half N"):
        draw_windows(SequenceReader(open_fasta(tmp_path / "n.fa"), DNATokenizer()), 20, 1, 0)


def test_the_command(command: Any, tmp_path: Path) -> None:
    for name in ("caduceus_ps_1k_d118", "caduceus_ph_1k_d118"):
        longscan.create_model(name, d_model=16, n_layer=2).save_pretrained(tmp_path / name[9:11])
    line = "genomics check-rc --fasta embedded:yeast1 --window 100 --windows 4 --tolerance 1e-4"
    outcome = command(f"{line} --model ps --json ps.json")
    assert outcome.status == 0, outcome.err
    assert "Equivariant to rounding" in outcome.out
    content = json.loads(Path("ps.json").read_text())
    assert content["results"][0]["relative"] < 1e-5
    assert (content["windows"], content["window"], content["revision"]) == (
        4, 100, prepare(longscan.from_pretrained("ps"), "ps").revision,
    )  # fmt: skip
    outcome = command(f"{line} --model ph")
    assert outcome.status == 1
    assert "is above 0.0001" in outcome.out
    assert "use --strand both, or take an equivariant model" in outcome.out
    assert command("genomics check-rc --fasta embedded:yeast1 --window 100 --windows 4 --model ph").status == 0


def test_bad_options(command: Any, tmp_path: Path) -> None:
    longscan.create_model("hyenadna_tiny_1k", d_model=16, n_layer=1, max_length=64).save_pretrained(tmp_path / "m")
    classifier = {"head": "classification", "num_classes": 2}  # which reads a separator behind the bases
    longscan.create_model("hyenadna_tiny_1k", d_model=16, n_layer=1, max_length=64, **classifier).save_pretrained(
        tmp_path / "c"
    )
    for options, message in (
        ("--window 1", "--window 1: must be at least 2"),
        ("--window 100", "--window: 100 bases are more than m takes at once, whose filters end at 64; use at most 64"),
        (
            "--window 64 --model c",
            "--window: 64 bases are more than c takes at once, whose filters end at 64; use at most 63",
        ),
        ("--tolerance -1", "--tolerance -1: must be at least 0"),
    ):
        outcome = command(f"genomics check-rc --model m --fasta embedded:yeast1 --windows 2 {options}")
        assert outcome.status == 2
        assert message in outcome.err


def test_an_answer_that_is_no_number_is_not_called_equal(windows: np.ndarray) -> None:
    model = build("caduceus_ph_1k_d118")
    with torch.no_grad():
        model.model.embedding.weight[7] = torch.nan
    with pytest.raises(UserError, match="logits at each position: the model's answer is not finite"):
        measure(model, windows)
