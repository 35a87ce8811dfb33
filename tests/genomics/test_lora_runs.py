"""Fine-tuning with adapters from the command line: exact resuming, averaging, exporting, predicting."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import longscan
from longscan.core.weights_digest import weights_digest

TINY = "--data.batch_size 8 --trainer.accelerator cpu --trainer.enable_progress_bar false --model.optimizer.lr 0.02"
LORA = "--model.finetuning.lora '{rank: 2, alpha: 4, dropout: 0.1}'"


@pytest.fixture(scope="session")
def line(pretrained: tuple[Path, Any], tables: Path) -> str:
    """The command that fine-tunes the pretrained model, without its adapters and its folder."""
    return (
        f"genomics fit --config genomics/quickstart_finetune --model.pretrained {pretrained[0]}/model "
        f"--model.options '{{dropout: 0.1}}' --data.dataset null --data.folder {tables} {TINY} --trainer.max_epochs 2"
    )


def state(path: str) -> dict[str, Any]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_with_adapters(command: Any, line: str, pretrained: tuple[Path, Any], tables: Path) -> None:
    outcome = command(f"{line} {LORA} --output run")
    assert outcome.status == 0, outcome.err
    # in_proj 16 -> 64, out_proj 32 -> 16, two x_proj 32 -> 1 + 2 · 16, all of rank 2, and the head 16 -> 2.
    trained = 2 * ((16 + 64) + (32 + 16) + 2 * (32 + 33)) + 2 * 16
    assert re.search(rf"^LoRA: {trained} of [\d,]+ parameters train \(\d+\.\d %\)$", outcome.out, re.MULTILINE)
    base: Any = longscan.from_pretrained(pretrained[0] / "model")
    best = state("run/checkpoints/best.ckpt")
    for name, value in base.state_dict().items():
        held = name.replace("_proj.weight", "_proj.base_layer.weight") if "dt_proj" not in name else name
        assert torch.equal(best[f"model.{held}"], value), name
    # The folder and the checkpoint are the same plain model, and no longer the base.
    plain, loaded = longscan.from_pretrained("run/model"), longscan.from_pretrained("run/checkpoints/best.ckpt")
    assert weights_digest(plain) == weights_digest(loaded)
    assert weights_digest(plain, head=False) != weights_digest(base)
    assert not any("lora" in name for name in plain.state_dict())
    # The adapted model and the merged one predict the same.
    file = f"--data.predict_file {tables}/test.tsv --trainer.accelerator cpu --trainer.enable_progress_bar false"
    for source, out in (("--ckpt_path run/checkpoints/best.ckpt", "a.tsv"), ("--model.pretrained run/model", "b.tsv")):
        outcome = command(f"genomics predict {source} {file} --predictions {out}")
        assert outcome.status == 0, outcome.err
    a, b = (Path(name).read_text().splitlines() for name in ("a.tsv", "b.tsv"))
    assert len(a) == len(b) == 17
    for left, right in zip(a[1:], b[1:], strict=True):
        assert left.split("\t")[:2] == right.split("\t")[:2]
        assert float(left.split("\t")[2]) == pytest.approx(float(right.split("\t")[2]), abs=2e-6)
    outcome = command("genomics test --ckpt_path run/checkpoints/best.ckpt")
    assert outcome.status == 0, outcome.err


def test_resuming_is_exact(command: Any, line: str) -> None:
    for folder, extra in (("whole", ""), ("cut", "--trainer.max_steps 4")):
        outcome = command(f"{line} {LORA} --model.schedule.total_steps 12 --output {folder} {extra}")
        assert outcome.status == 0, outcome.err
    outcome = command(f"{line} {LORA} --model.schedule.total_steps 12 --output cut --ckpt_path last")
    assert outcome.status == 0, outcome.err
    whole, cut = state("whole/checkpoints/last.ckpt"), state("cut/checkpoints/last.ckpt")
    assert whole.keys() == cut.keys()
    assert any(".lora_B." in name and value.any() for name, value in whole.items())
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name
    cards = [
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["longscan"]["model"] for run in ("whole", "cut")
    ]
    assert cards[0]["adapter"] == cards[1]["adapter"]


def test_another_alpha_is_no_way_to_go_on(command: Any, line: str) -> None:
    assert command(f"{line} {LORA} --output run --trainer.max_steps 2").status == 0
    outcome = command(f"{line} --model.finetuning.lora '{{rank: 2, alpha: 8}}' --output run --ckpt_path last")
    assert outcome.status == 2
    assert "was trained with lora.alpha 4.0, but this run has 8.0" in outcome.err


def test_averaged_adapters_are_exported_alone(
    command: Any, line: str, pretrained: tuple[Path, Any], tables: Path
) -> None:
    lora = "--model.finetuning.lora '{rank: 2, targets: [in_proj], merge: false}'"
    average = "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging --trainer.callbacks.decay 0.9"
    outcome = command(f"{line} {lora} {average} --output run")
    assert outcome.status == 0, outcome.err
    assert not Path("run/model").exists()
    record = json.loads(Path("run/adapter/longscan_adapter.json").read_text())
    base = longscan.from_pretrained(pretrained[0] / "model")
    assert record["base"] == str((pretrained[0] / "model").resolve())
    assert record["base_revision"] == weights_digest(base)
    loaded = longscan.from_pretrained("run/adapter")
    best = longscan.from_pretrained("run/checkpoints/best.ckpt")
    assert weights_digest(loaded) == weights_digest(best)  # the average of frozen weights is themselves, to the bit
    file = f"--data.predict_file {tables}/test.tsv --trainer.accelerator cpu --trainer.enable_progress_bar false"
    outcome = command(f"genomics predict --model.pretrained run/adapter {file} --predictions p.tsv")
    assert outcome.status == 0, outcome.err
    assert len(Path("p.tsv").read_text().splitlines()) == 17


def test_adapters_need_a_pretrained_model(command: Any, line: str) -> None:
    outcome = command(f"{line} {LORA} --model.pretrained null")
    assert outcome.status == 2
    assert "finetuning.lora adapts a pretrained model; give model.pretrained" in outcome.err


def test_mistakes_in_finetuning_are_told_in_one_line(command: Any, line: str) -> None:
    for given, told in (
        ("--model.finetuning.lora '{targets: [dt_proj]}'", "'dt_proj' cannot have an adapter"),
        ("--model.finetuning.lora '{rank: 0}'", "lora.rank must be at least 1"),
        ("--model.finetuning.freeze '[embeding.weight]'", "'embeding.weight' matches no parameter; nearest: "),
        ("--model.finetuning.layer_decay 2", "layer_decay is 2"),
    ):
        outcome = command(f"{line} {given}")
        assert outcome.status == 2, outcome.err
        assert told in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1, outcome.err


def test_freezing_and_layer_decay_from_the_command_line(command: Any, line: str, pretrained: tuple[Path, Any]) -> None:
    outcome = command(f"{line} --model.finetuning.freeze backbone --output probe")
    assert outcome.status == 0, outcome.err
    assert "fine-tuning: 32 of " in outcome.out
    probe = longscan.from_pretrained("probe/model")
    assert weights_digest(probe, head=False) == weights_digest(longscan.from_pretrained(pretrained[0] / "model"))
    outcome = command(f"{line} --model.finetuning.layer_decay 0.5 --output decayed")
    assert outcome.status == 0, outcome.err
    assert "no_decay, lr 0.005: 1 tensors" in outcome.out  # the embedding: two halvings with one block
