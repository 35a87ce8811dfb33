"""Sequence-length warm-up, averaged weights, pictures, results and checkpoints as files."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from toy_training import Recorder, ToyData, ToyModel

from longscan.core.errors import UserError
from longscan.core.training.callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    LearningCurves,
    ResultTable,
    SequenceLengthWarmup,
    Stage,
    Throughput,
)
from longscan.core.training.callbacks.pictures import draw_confusion, read_curves
from longscan.core.training.optimizer import OptimizerConfig
from longscan.core.training.schedule import ScheduleConfig
from longscan.core.training.tasks import LanguageModelTask


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _fit(folder: Path, callbacks: list[Any], **options: Any) -> tuple[pl.Trainer, LanguageModelTask]:
    pl.seed_everything(3)
    settings: dict[str, Any] = {"max_epochs": 2, "logger": False} | options
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        **settings,
    )
    task = LanguageModelTask(ToyModel(), OptimizerConfig(lr=1e-2), ScheduleConfig())
    trainer.fit(task, ToyData(batch_size=4, seed=5))
    return trainer, task


def test_length_warmup_shapes_and_steps(tmp_path: Path) -> None:
    """22 samples: 1 epoch of 3 batches of 8 x 3, 2 of 4 batches of 6 x 4, then 6 batches of 4 x 6 per epoch."""
    stages = [Stage(1, 3, 8), Stage(2, 4, 6), Stage(1, 6, 4)]
    warmup = SequenceLengthWarmup(stages)
    recorder = Recorder(tmp_path / "batches.txt", None, None)
    trainer, _ = _fit(tmp_path, [warmup, recorder], max_epochs=5, reload_dataloaders_every_n_epochs=1)
    shapes: dict[int, list[tuple[int, int]]] = {}
    for line in (tmp_path / "batches.txt").read_text().splitlines():
        epoch, _, *shape = line.replace("(", "").replace(")", "").replace(",", "").split()[:4]
        shapes.setdefault(int(epoch), []).append((int(shape[0]), int(shape[1])))
    assert shapes == {
        0: [(8, 3), (8, 3), (6, 3)],
        1: [(6, 4)] * 3 + [(4, 4)],
        2: [(6, 4)] * 3 + [(4, 4)],
        3: [(4, 6)] * 5 + [(2, 6)],
        4: [(4, 6)] * 5 + [(2, 6)],
    }
    assert trainer.global_step == 3 + 2 * 4 + 2 * 6
    assert warmup.total_steps(trainer) == 23
    # The schedule knew: a cosine over 23 steps ends at zero.
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_length_warmup_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reload_dataloaders_every_n_epochs: 1"):
        _fit(tmp_path, [SequenceLengthWarmup([Stage(1, 3, 8)])])
    with pytest.raises(UserError, match="at least one stage"):
        SequenceLengthWarmup([])
    with pytest.raises(UserError, match="stage 2"):
        SequenceLengthWarmup([Stage(1, 2, 3), Stage(1, 0, 3)])


def test_averaged_weights_are_those_of_the_recurrence(tmp_path: Path) -> None:
    """With decay d: average = d average + (1 - d) weights after each step, the first being the weights themselves."""

    class Weights(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[torch.Tensor] = []

        def on_train_batch_end(self, trainer: Any, module: Any, *arguments: Any) -> None:
            self.seen.append(module.model.hidden.weight.detach().clone())

    weights = Weights()
    _, task = _fit(tmp_path, [EMAWeightAveraging(decay=0.8), weights, LastCheckpoint()], limit_val_batches=0)
    average = weights.seen[0]
    for value in weights.seen[1:]:
        average = 0.8 * average + 0.2 * value
    torch.testing.assert_close(task.model.hidden.weight.detach(), average)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    torch.testing.assert_close(checkpoint["state_dict"]["model.hidden.weight"], average)
    assert torch.equal(checkpoint["current_model_state"]["model.hidden.weight"], weights.seen[-1])


def test_results_curves_and_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callbacks = [Throughput(), LearningCurves(), ResultTable(), BestCheckpoint(), LastCheckpoint()]
    _, task = _fit(tmp_path, callbacks, logger=CSVLogger(str(tmp_path), name="csv"), log_every_n_steps=2)
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert result["verb"] == "fit"
    assert (result["epochs"], result["steps"]) == (2, 12)
    assert result["parameters"] == sum(parameter.numel() for parameter in task.parameters())
    assert result["tokens_per_second"] > 0
    assert result["peak_memory_bytes"] > 10**7
    curves = read_curves(tmp_path / "csv")
    assert [step for step, _ in curves["val/loss"]] == [5, 11]
    assert result["best"]["value"] == pytest.approx(min(value for _, value in curves["val/loss"]), abs=1e-5)
    assert (tmp_path / result["best"]["checkpoint"]).is_file()
    assert result["metrics"]["val/loss"] == pytest.approx(curves["val/loss"][-1][1], abs=1e-5)
    assert (tmp_path / "learning_curves.png").read_bytes()[1:4] == b"PNG"
    shown = capsys.readouterr().out
    for name in ("metrics.json", "best.ckpt", "last.ckpt", "learning_curves.png", "val/perplexity"):
        assert name in shown

    checkpoint = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["longscan"]["model"] == {"class": "toy_training.ToyModel", "config": {"width": 8}}
    assert checkpoint["hyper_parameters"]["optimizer"]["lr"] == 1e-2
    again = LanguageModelTask.load_from_checkpoint(
        tmp_path / "checkpoints" / "best.ckpt", model=ToyModel(), weights_only=True
    )
    assert again.optimizer_config == OptimizerConfig(lr=1e-2)


def test_curves_of_a_resumed_run_are_joined(tmp_path: Path) -> None:
    for version, rows in [(2, "0,3,2.0\n0,5,1.5\n"), (10, "1,5,1.0\n1,7,0.5\n")]:
        folder = tmp_path / f"version_{version}"
        folder.mkdir()
        (folder / "metrics.csv").write_text("epoch,step,train/loss\n" + rows)
    assert read_curves(tmp_path) == {"train/loss": [(3, 2.0), (5, 1.0), (7, 0.5)]}


def test_confusion_picture(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    draw_confusion(torch.tensor([[3, 1], [0, 0]]), str(path), names=["yes", "no"], title="test set")
    assert path.stat().st_size > 2000


def test_a_failed_write_keeps_the_earlier_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(AttributeError, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"step": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_unknown_monitor_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metric is called 'val/los'; nearest: val/loss"):
        _fit(tmp_path, [BestCheckpoint("val/los"), Recorder(tmp_path / "batches.txt", None, None)])
    assert not (tmp_path / "batches.txt").exists()
