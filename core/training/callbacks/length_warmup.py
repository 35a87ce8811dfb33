"""Sequence-length warm-up: train on short sequences first (HyenaDNA, arXiv:2306.15794, section 3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ...errors import UserError


@dataclass(frozen=True)
class Stage:
    """Some epochs at one sequence length.

    Args:
        epochs: how many.
        seqlen: tokens per sample.
        batch_size: samples per step and process; usually so that ``seqlen * batch_size`` stays the same.
    """

    epochs: int
    seqlen: int
    batch_size: int


class SequenceLengthWarmup(Callback):
    """Go through stages of growing sequence length; the last one lasts until the end of training.

    Stages change between epochs, through the data module's ``set_stage(seqlen, batch_size)``; evaluation keeps its
    own length and batch size.

    Args:
        stages: in their order.
    """

    def __init__(self, stages: list[Stage]) -> None:
        if not stages:
            raise UserError("sequence-length warm-up needs at least one stage")
        for number, stage in enumerate(stages, start=1):
            if min(stage.epochs, stage.seqlen, stage.batch_size) < 1:
                raise UserError(
                    f"stage {number} of sequence-length warm-up: all numbers must be at least 1, got {stage}"
                )
        self.stages = list(stages)

    def stage_of(self, epoch: int) -> Stage:
        """Return the stage that ``epoch`` (from 0) belongs to."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        return self.stages[-1]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if trainer.reload_dataloaders_every_n_epochs != 1:  # type: ignore[attr-defined]
            raise UserError("sequence-length warm-up needs trainer.reload_dataloaders_every_n_epochs: 1")
        # A checkpoint restored after this brings its own stage along.
        self._enter(trainer, 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Now, and not when the next epoch starts: by then Lightning has built its loader.
        progress: Any = trainer.fit_loop.epoch_progress.current
        self._enter(trainer, progress.processed)

    def _enter(self, trainer: pl.Trainer, epoch: int) -> None:
        stage = self.stage_of(epoch)
        _data_module(trainer).set_stage(stage.seqlen, stage.batch_size)

    def total_steps(self, trainer: pl.Trainer) -> float:
        """Return the optimiser steps of the whole training, which the trainer would guess from the first stage."""
        max_epochs, max_steps = trainer.max_epochs, trainer.max_steps
        limit = math.inf if max_steps == -1 else max_steps
        if max_epochs is None or max_epochs == -1:
            return limit
        data = _data_module(trainer)
        current = data.stage
        steps, epoch = 0, 0
        while epoch < max_epochs:
            stage = self.stage_of(epoch)
            epochs = 1 if stage is not self.stages[-1] else max_epochs - epoch
            data.set_stage(stage.seqlen, stage.batch_size)
            steps += epochs * self._steps_per_epoch(trainer, len(data.train_dataloader()))
            epoch += epochs
        data.set_stage(*current)
        return min(steps, limit)

    @staticmethod
    def _steps_per_epoch(trainer: pl.Trainer, batches: int) -> int:
        share = trainer.limit_train_batches  # type: ignore[attr-defined]
        batches = min(batches, share) if isinstance(share, int) else int(batches * share)
        return math.ceil(batches / trainer.accumulate_grad_batches)


def _data_module(trainer: pl.Trainer) -> Any:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not hasattr(data, "set_stage"):
        raise UserError("sequence-length warm-up needs a data module with set_stage(seqlen, batch_size)")
    return data
