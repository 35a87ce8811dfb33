"""Validation before the first step, so that what training starts from can be what is kept."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint


def validate_now(trainer: pl.Trainer) -> None:
    """Run the whole validation as after an epoch; for ``on_train_start``. Nothing without a validation set."""
    loop: Any = trainer.fit_loop.epoch_loop.val_loop
    if trainer.fast_dev_run or not trainer.enable_validation or sum(loop.max_batches) == 0:  # type: ignore[attr-defined]
        return
    trainer.validating = True
    loop.run()
    trainer.training = True


class ValidateFirst(Callback):
    """Validates a model of points that starts at the closed-form solution (``linear_start``): where training never
    improves on it, ``best.ckpt`` holds the start. Not one with quantiles, which start untrained however good its points
    are."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step > 0 or not getattr(pl_module, "linear_start", False):
            return
        if pl_module.model.config.head != "point":
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint):
                callback._last_global_step_saved = -1  # else step 0 counts as saved
        validate_now(trainer)
