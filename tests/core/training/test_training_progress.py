"""The progress bar shows the training loss, and training does not wait for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from toy_training import ToyData, ToyModel

from longscan.core.training.callbacks import TrainingProgress
from longscan.core.training.tasks import LanguageModelTask


class Watch(pl.Callback):
    """What Lightning reads from the device in every step, and what the bar shows."""

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.shown: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self.read |= set(trainer.progress_bar_metrics)
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        bar: Any = trainer.progress_bar_callback
        self.shown.append(bar.get_metrics(trainer, pl_module)["train/loss"])


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_the_loss_is_read_once_in_a_second(seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by ``seconds`` a step, as the bar sees it."""
    clock, start = [0.0], time.monotonic()
    monkeypatch.setattr("longscan.core.training.callbacks.progress.time.monotonic", lambda: start + clock[0])
    watch = Watch()

    class Clock(pl.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            clock[0] += seconds

    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[Clock(), TrainingProgress(), watch],
    )
    trainer.fit(LanguageModelTask(ToyModel()), ToyData(batch_size=4, seed=5))
    assert len(watch.losses) > 3
    assert "train/loss" not in watch.read
    assert len(set(watch.losses)) == len(watch.losses)
    assert watch.shown == (watch.losses if seconds else [watch.losses[0]] * len(watch.losses))
