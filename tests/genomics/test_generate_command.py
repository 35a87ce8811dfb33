"""``longscan genomics generate``: new DNA with its likelihood."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Bio import SeqIO

import longscan
from longscan.genomics.inference import DNAModel, prepare
from longscan.genomics.sampling import _drawn, _uniform
from longscan.genomics.strand_symmetry import log_likelihoods
from longscan.genomics.tokenizer import DNATokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("generate")
    torch.manual_seed(0)
    options = {"d_model": 16, "n_layer": 2}
    longscan.create_model("caduceus_ph_1k_d118", bidirectional=False, **options).save_pretrained(folder / "mamba")
    longscan.create_model("caduceus_ph_1k_d118", **options).save_pretrained(folder / "ph")
    longscan.create_model("hyenadna_tiny_1k", max_length=64, **options).save_pretrained(folder / "hyena")
    head: dict[str, Any] = {"head": "classification", "num_classes": 2}
    longscan.create_model("hyenadna_tiny_1k", max_length=64, **options, **head).save_pretrained(folder / "classes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSCAN_CACHE", str(folder / "cache"))
        yield folder


def load(folder: Path, name: str) -> DNAModel:
    return prepare(longscan.from_pretrained(folder / name), name)


def read(path: str) -> list[tuple[str, str, dict[str, str]]]:
    """Name, sequence and header fields of every record."""
    records = list(SeqIO.parse(path, "fasta"))
    fields = [dict(word.split("=", 1) for word in record.description.split()[1:]) for record in records]
    return [(r.id, str(r.seq), f) for r, f in zip(records, fields, strict=True)]


def likelihood(model: DNAModel, sequence: str, given: int) -> float:
    ids = DNATokenizer().encode(sequence, add_special_tokens=False)[None]
    return float(log_likelihoods(model, ids)[0, given - 1 :].double().sum())


@pytest.mark.parametrize("name", ["mamba", "hyena"])
def test_without_a_prompt(command: Any, folder: Path, name: str) -> None:
    line = f"genomics generate --model {folder}/{name} --length 60 --number 7 --batch-size 3"
    outcome = command(f"{line} --output a.fa --seed 5")
    assert outcome.status == 0, outcome.err
    model, records = load(folder, name), read("a.fa")
    assert [record[0] for record in records] == [f"sample_{i}" for i in range(1, 8)]
    assert len({record[1] for record in records}) == 7
    assert len({record[1][0] for record in records}) > 1
    for _, sequence, fields in records:
        assert len(sequence) == 60
        assert set(sequence) <= set("ACGT")
        total = likelihood(model, sequence, 1)
        assert float(fields["log_likelihood"]) == pytest.approx(total, abs=1e-4)
        assert float(fields["mean_log_likelihood"]) == pytest.approx(total / 59, abs=1e-5)
        assert (fields["predicted"], fields["seed"], fields["revision"]) == ("59", "5", model.revision)
    assert command(f"{line} --output b.fa --seed 5").status == 0
    assert Path("b.fa").read_bytes() == Path("a.fa").read_bytes()
    assert command(f"{line} --output b.fa --seed 6").status == 0
    assert Path("b.fa").read_bytes() != Path("a.fa").read_bytes()


def test_prompts_keep_their_order_and_are_counted(command: Any, folder: Path) -> None:
    Path("p.fa").write_text(">x\nACGTACGT\n>y\nttga\n>z\nGGGGCCCC\n")
    line = f"genomics generate --model {folder}/mamba --prompt-fasta p.fa --length 90 --number 2"
    outcome = command(f"{line} --temperature 0.7 --top-k 3 --top-p 0.9 --output a.fa")
    assert outcome.status == 0, outcome.err
    model, records = load(folder, "mamba"), read("a.fa")
    assert [record[0] for record in records] == ["x_1", "x_2", "y_1", "y_2", "z_1", "z_2"]
    prompts = {"x": "ACGTACGT", "y": "TTGA", "z": "GGGGCCCC"}
    for name, sequence, fields in records:
        prompt = prompts[name[0]]
        assert sequence.startswith(prompt)
        assert len(sequence) == len(prompt) + 90
        # The model's own likelihood, whatever the distribution that was drawn from.
        assert float(fields["log_likelihood"]) == pytest.approx(likelihood(model, sequence, len(prompt)), abs=1e-4)
    assert max(len(line) for line in Path("a.fa").read_text().splitlines() if line[0] != ">") == 80
    assert command(f"{line} --temperature 0.7 --top-k 3 --top-p 0.9 --omit-prompt --output b.fa").status == 0
    assert [r[1] for r in read("b.fa")] == [r[1][len(prompts[r[0][0]]) :] for r in records]


def test_greedy_takes_the_most_probable_base(command: Any, folder: Path) -> None:
    line = f"genomics generate --model {folder}/mamba --prompt ACGTTG --length 12 --greedy --output a.fa"
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    ((_, sequence, _),) = read("a.fa")
    model, tokenizer, text = load(folder, "mamba"), DNATokenizer(), "ACGTTG"
    for _ in range(12):
        logits = model.logits(tokenizer.encode(text, add_special_tokens=False)[None])[0, -1, 7:11]
        text += "ACGT"[int(logits.argmax())]
    assert sequence == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model ph", "ph: reads from both ends and cannot generate"),
        ("--model classes", "classes: is a classifier and cannot generate"),
        ("--model hyena --length 66", "65 new ones are more than hyena takes, whose filters end at 64"),
        ("--model hyena --prompt ACGTA --length 60", "prompt 'prompt': its 5 bases and 60 new ones are more than"),
        ("--model mamba --prompt ''", "--prompt: is empty"),
        ("--model mamba --prompt ACGXA", "--prompt: 'X' at position 4 is not A, C, G, T or N"),
        ("--model mamba --prompt A --prompt-fasta p.fa", "exclude each other"),
        ("--model mamba --prompt-fasta p.fa", "p.fa: no such file"),
        ("--model mamba --length 1", "--length 1: must be at least 2"),
        ("--model mamba --prompt A --length 0", "--length 0: must be at least 1"),
        ("--model mamba --number 0", "--number 0: must be at least 1"),
        ("--model mamba --temperature 0", "--temperature 0: must be above 0; for the most probable base --greedy"),
        ("--model mamba --top-k 0", "--top-k 0: must be at least 1"),
        ("--model mamba --top-p 1.5", "--top-p 1.5: must lie above 0"),
        ("--model mamba --omit-prompt", "--omit-prompt: there is no prompt"),
    ],
)
def test_bad_options(command: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, options: str, message: str) -> None:
    monkeypatch.chdir(folder)
    outcome = command(f"genomics generate {options} --output bad.fa")
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("bad.fa").exists()


def test_the_draw_does_not_depend_on_the_batch(command: Any, folder: Path) -> None:
    """Each record has random numbers of its own: neither the batch size nor the other records change it."""
    Path("p.fa").write_text(">x\nACGTACGT\n>y\nttga\n>z\nGGGGCCCC\n")
    for source in ("--number 5", "--prompt-fasta p.fa --number 3"):
        line = f"genomics generate --model {folder}/mamba --length 200 --seed 3 {source}"
        for size in (1, 2, 16):
            assert command(f"{line} --batch-size {size} --output {size}.fa").status == 0
        sequences = {size: [record[1] for record in read(f"{size}.fa")] for size in (1, 2, 16)}
        assert sequences[1] == sequences[2] == sequences[16]
        assert len(set(sequences[1])) == len(sequences[1])
    assert (
        command(f"genomics generate --model {folder}/mamba --length 200 --seed 3 --number 2 --output f.fa").status == 0
    )
    assert (
        command(f"genomics generate --model {folder}/mamba --length 200 --seed 3 --number 9 --output m.fa").status == 0
    )
    assert [record[1] for record in read("f.fa")] == [record[1] for record in read("m.fa")][:2]
    Path("q.fa").write_text(">x\nACGT\n>y\nttga\n>z\nGG\n")  # other lengths, so other batches
    assert command(f"{line.replace('p.fa', 'q.fa')} --output q_out.fa").status == 0
    own = [[record[1] for record in read(name) if record[0].startswith("y")] for name in ("16.fa", "q_out.fa")]
    assert own[0] == own[1]


def test_draws_have_the_probabilities_of_the_distribution() -> None:
    probabilities = torch.tensor([0.0, 0.1, 0.0, 0.6, 0.3, 0.0])
    generators = [np.random.default_rng(row) for row in range(50)]
    numbers = _uniform(generators)
    rows = [_drawn(probabilities.expand(50, 6), torch.from_numpy(next(numbers))) for _ in range(2000)]
    shares = torch.bincount(torch.cat(rows), minlength=6) / 100_000
    np.testing.assert_allclose(shares.numpy(), probabilities.numpy(), atol=0.006)  # 4 standard deviations
    edges = torch.tensor([0.0, 0.0999, 1 - 2.0**-24], dtype=torch.float64)
    assert _drawn(probabilities.expand(3, 6), edges).tolist() == [1, 1, 4]
    assert _drawn((probabilities * 1.0000001).expand(1, 6), edges[-1:]).tolist() == [4]


def test_a_model_with_any_name(command: Any, folder: Path) -> None:
    shutil.copytree(folder / "mamba", "modèle")
    outcome = command("genomics generate --model modèle --length 5 --output a.fa")
    assert outcome.status == 0, outcome.err
    assert "model=modèle" in Path("a.fa").read_text(encoding="utf-8")
