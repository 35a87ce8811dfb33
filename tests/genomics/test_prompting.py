"""Soft prompts: only the prompt is trained, padding is never read, and what was trained can be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.core.weights_digest import weights_digest
from longscan.genomics.prompting import (
    SoftPromptClassification,
    SoftPromptModel,
    example_sequences,
    label_tokens,
    load_prompt,
)
from longscan.genomics.tokenizer import PAD, SEP, A, C, G, N, T

TWO = ["at", "gc"]


def hyena(**options: Any) -> Any:
    return longscan.create_model("hyenadna_tiny_1k", **{"d_model": 8, "n_layer": 1, "max_length": 66} | options)


def mamba(**options: Any) -> Any:
    return longscan.create_model(
        "caduceus_ph_1k_d118", **{"d_model": 8, "n_layer": 1, "bidirectional": False} | options
    )


def test_labels_are_nucleotides() -> None:
    assert label_tokens(TWO) == (A, N)
    assert label_tokens("abc") == (A, N, G)
    assert label_tokens("abcd") == (A, C, G, T)
    assert label_tokens("abcde") == (A, C, G, T, N)
    with pytest.raises(UserError, match=r"2 to 5 classes apart.*the data has 6"):
        label_tokens("abcdef")


@pytest.mark.parametrize("make", [hyena, mamba])
def test_a_prompt_of_nucleotides_is_those_nucleotides(make: Any) -> None:
    """Before training the vectors are embeddings, so prompting equals writing letters before the sequence."""
    base = make().eval()
    model = SoftPromptModel(base, TWO, 5).eval()
    distances = (model.prompt[:, None] - base.embedding.weight[A : T + 1]).abs().sum(-1)
    letters = distances.argmin(1) + A
    assert distances.min(1).values.max() == 0
    ids = torch.randint(A, T + 1, (3, 20))
    whole = base(torch.cat([letters.expand(3, -1), ids], dim=1))[:, -1, [A, N]]
    torch.testing.assert_close(model(ids), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_never_read(side: str) -> None:
    model = SoftPromptModel(hyena(), TWO, 4).eval()
    rows = [torch.randint(A, T + 1, (length,)) for length in (7, 12, 1)]
    ids, mask = torch.full((3, 14), PAD), torch.zeros(3, 14, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(14 - len(row), None) if side == "left" else slice(0, len(row))
        ids[i, place], mask[i, place] = row, True
    alone = torch.cat([model(row[None]) for row in rows])
    torch.testing.assert_close(model(ids, mask), alone, rtol=0, atol=1e-6)


def test_the_window_of_the_model_is_respected() -> None:
    model = SoftPromptModel(hyena(max_length=32), TWO, 10, context=torch.tensor([A, SEP])).eval()
    model(torch.full((1, 20), A))
    with pytest.raises(UserError) as error:
        model(torch.full((1, 21), A))
    assert "prompt_length 10, 2 of examples and a sequence of 21 tokens are 33 together" in str(error.value)
    assert "end at 32; use at most 11 before the sequence" in str(error.value)
    SoftPromptModel(mamba(), TWO, 10)(torch.full((1, 500), A))


def test_models_that_cannot_be_prompted() -> None:
    with pytest.raises(UserError, match="needs a causal model, and Caduceus reads both sides"):
        SoftPromptModel(mamba(bidirectional=True), TWO, 4)
    with pytest.raises(UserError, match="has a classification head"):
        SoftPromptModel(hyena(head="classification", num_classes=2), TWO, 4)


def test_the_base_stays_in_evaluation_mode_and_gets_no_gradient() -> None:
    model = SoftPromptModel(hyena(embed_dropout=0.5), TWO, 4, dropout=0.5).train()
    assert model.dropout.training
    assert not any(module.training for module in model.base.modules())
    model(torch.full((2, 9), C)).sum().backward()
    assert model.prompt.grad is not None
    assert all(parameter.grad is None for parameter in model.base.parameters())


def test_a_prompt_learns() -> None:
    """The loss on 48 sequences rich in AT or in GC falls from 0.78 to 0.58 in 40 steps; guessing is 0.69."""
    model = SoftPromptModel(hyena(d_model=16, n_layer=2, initializer_range=0.3), TWO, 8, dropout=0.0)
    labels = torch.arange(48) % 2
    odds = torch.tensor([[0.4, 0.1, 0.1, 0.4], [0.1, 0.4, 0.4, 0.1]])
    ids = torch.multinomial(odds[labels], 40, replacement=True) + A
    optimizer = torch.optim.Adam([model.prompt], lr=0.02)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(ids), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.62


# From the command line


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A causal model with random weights, large enough for the prompt to matter."""
    return hyena(d_model=16, n_layer=2, initializer_range=0.3).save_pretrained(tmp_path / "base")


@pytest.fixture
def line(base: Path, tables: Path) -> str:
    return (
        f"genomics fit --config soft_prompt --model.pretrained {base} --model.prompt_length 4 --data.dataset null "
        f"--data.folder {tables} --data.batch_size 8 --trainer.accelerator cpu --trainer.accumulate_grad_batches 1 "
        "--trainer.enable_progress_bar false --model.optimizer.lr 0.05 --trainer.max_epochs 6 --output run"
    )


def predictions(path: str) -> list[list[str]]:
    return [row.split("\t") for row in Path(path).read_text().splitlines()]


def test_only_the_prompt_is_trained_and_can_be_used(command: Any, line: str, base: Path, tables: Path) -> None:
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    assert "fine-tuning: 64 of " in outcome.out  # 4 vectors of width 16
    assert "run/prompt" in outcome.out
    assert not Path("run/model").exists()
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    original: Any = longscan.from_pretrained(base)
    for name, value in original.state_dict().items():
        assert torch.equal(state[f"model.base.{name}"], value), name
    prompt = state["model.prompt"]
    letters = original.embedding.weight[A : T + 1].detach()
    assert (prompt[:, None] - letters).abs().amax(-1).min() > 0.01  # all four have left the letters they began as
    description = json.loads(Path("run/prompt/prompt.json").read_text())
    assert description["base_revision"] == weights_digest(original)
    assert (description["labels"], description["class_names"]) == (["A", "N"], TWO)
    model, _ = load_prompt(Path("run/prompt"))
    assert torch.equal(
        model.prompt, torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"]["model.prompt"]
    )
    file = f"--data.predict_file {tables}/test.tsv --trainer.accelerator cpu --trainer.enable_progress_bar false"
    for source, out in (
        ("--ckpt_path run/checkpoints/best.ckpt", "a.tsv"),
        (
            "--config soft_prompt --model.pretrained null --model.prompt run/prompt --data.dataset null "
            "--data.class_names [at,gc]",
            "b.tsv",
        ),
        ("--model.class_path SoftPromptClassification --model.prompt run/prompt", "c.tsv"),
    ):
        outcome = command(f"genomics predict {source} {file} --predictions {out}")
        assert outcome.status == 0, outcome.err
    assert predictions("a.tsv") == predictions("b.tsv") == predictions("c.tsv")
    outcome = command(f"genomics predict {source} {file} --predictions d.tsv --data.tokenizer.special_tokens none")
    assert "run/prompt: was trained with another tokenizer; set data.tokenizer to have {'case': 'keep'" in outcome.err
    assert predictions("a.tsv")[0] == ["name", "prediction", "probability_at", "probability_gc"]
    assert len(predictions("a.tsv")) == 17
    outcome = command("genomics test --ckpt_path run/checkpoints/best.ckpt")
    assert outcome.status == 0, outcome.err
    # In a process of its own, where nothing has asked for a model before.
    program = "from pathlib import Path; from longscan.genomics.prompting import load_prompt; "
    program += "print(load_prompt(Path('run/prompt'))[0].class_names)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert shown.stdout == "['at', 'gc']\n", shown.stderr


def test_examples_stand_before_the_sequence(command: Any, line: str, tables: Path) -> None:
    # Examples of 60 bases: 2 of each class, with [SEP] label [SEP], are 4 · 63 tokens.
    long = hyena(max_length=400).save_pretrained("long")
    outcome = command(f"{line} --model.pretrained {long} --model.shots 2 --trainer.max_epochs 1")
    assert outcome.status == 0, outcome.err
    model, _ = load_prompt(Path("run/prompt"))
    assert len(model.context) == 4 * 63
    context = model.context.view(4, 63)
    assert (context[:, [60, 62]] == SEP).all()
    assert context[:, 61].tolist() == [A, N, A, N]
    at = ((context[:, :60] == A) | (context[:, :60] == T)).float().mean(1)
    assert (at[[0, 2]] > 0.6).all()
    assert (at[[1, 3]] < 0.4).all()
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"]["model.context"], model.context)
    assert samples(saved) == 48 - 4
    # So it is for a run that goes on, and for one that takes the prompt and its examples from another.
    outcome = command(f"{line} --model.pretrained {long} --model.shots 2 --trainer.max_epochs 2 --ckpt_path last")
    assert outcome.status == 0, outcome.err
    assert "4 training row(s) stand as examples before every sequence; the other 44 are trained on" in outcome.err
    assert samples(torch.load("run/checkpoints/last.ckpt", weights_only=True)) == 44
    outcome = command(
        f"{line} --model.pretrained null --model.prompt run/prompt --trainer.max_epochs 1 --output further"
    )
    assert outcome.status == 0, outcome.err
    assert samples(torch.load("further/checkpoints/last.ckpt", weights_only=True)) == 44


def samples(checkpoint: dict[str, Any]) -> int:
    """Number of rows that were trained on."""
    return next(value["samples"] for value in checkpoint.values() if isinstance(value, dict) and "samples" in value)


def test_examples_are_not_trained_on() -> None:
    """Rows whose sequence, as far as the model sees it, stands before every sequence; also where it occurs again."""
    from types import SimpleNamespace

    import numpy as np

    from longscan.genomics.data.samples import SequenceDataset
    from longscan.genomics.data.tables import make_table

    rows = [[A, C, G, T], [G, G], [A, C, G, G], [T], [C], [C]]
    parts = [np.array(row, dtype=np.uint8) for row in rows]
    table = make_table("x", parts, None, [str(row) for row in range(6)], [1] * 6)
    targets = np.array([0, 1, 0, 1, 0, 1])
    data = SimpleNamespace(
        train_set=SequenceDataset(table, targets, rc_augment=0.5, seed=3),
        cut=lambda symbols: symbols[:3],
        tokenizer=SimpleNamespace(special_tokens="sep"),
        seed=0,
    )
    task = SoftPromptClassification(shots=1)
    task.trainer = SimpleNamespace(datamodule=data, state=SimpleNamespace(fn="fit"))
    context = task._examples(TWO)
    sequences = example_sequences(context)
    assert len(sequences) == 2
    chosen = {tuple(sequence) for sequence in sequences}
    task._leave_out(context)
    left = data.train_set
    kept = [row for row in range(6) if tuple(rows[row][:3]) not in chosen]
    assert [left.table[row].tolist() for row in range(len(left))] == [rows[row] for row in kept]
    assert left.targets.tolist() == targets[kept].tolist()
    assert (left.rc_augment, left.seed) == (0.5, 3)
    with pytest.raises(UserError, match="no training row is left"):
        task._leave_out(torch.tensor([i for row in rows for i in (*row[:3], SEP, A, SEP)]))


def test_mistakes_are_told_in_one_line(command: Any, line: str, base: Path) -> None:
    assert command(line + " --trainer.max_epochs 1").status == 0
    file = "--data.dataset null --data.predict_file x.tsv --data.class_names [at,gc]"
    Path("x.tsv").write_text("sequence\nACGT\n")
    hyena().save_pretrained(base)
    for given, told in (
        (f"{line} --output b --model.pretrained null", "give model.pretrained"),
        (
            f"{line} --output c --model.prompt_length 20",
            "train.tsv:2: record 'train0': 61 tokens, special ones included, are 15 more",
        ),
        (
            f"{line} --output f --model.prompt_length 20",
            "end at 66 (max_length) with prompt_length 20 and 0 of examples",
        ),
        (f"{line} --output d --model.shots 99", "shots 99: class 'at' has only 24 training rows"),
        (f"{line} --output e --model.prompt_length 0", "expected at least 1 vector"),
        (f"genomics predict --config soft_prompt --model.prompt run/prompt {file}", "now has the weights"),
        (f"genomics predict --config soft_prompt --model.prompt {base} {file}", "holds no prompt.json"),
    ):
        outcome = command(given)
        assert outcome.status == 2, outcome.err
        assert told in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1, outcome.err
