"""The progress bar, with rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar


def _on_standard_error(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(self: TQDMProgressBar) -> Any:
        with redirect_stdout(sys.stderr):  # Lightning asks for sys.stdout when it makes a bar
            return make(self)

    return made


class TrainingProgress(TQDMProgressBar):
    """Lightning's bar on standard error, without the logger's version, and closed before an error is told.

    The training loss in it is read from the device once in a second: reading it in every step, as Lightning does with
    what is logged for the progress bar, keeps the host from preparing the next step while the device computes.
    """

    _loss: tuple[float, float] | None = None
    """When the training loss was read, in seconds, and what it was."""

    init_sanity_tqdm = _on_standard_error(TQDMProgressBar.init_sanity_tqdm)
    init_train_tqdm = _on_standard_error(TQDMProgressBar.init_train_tqdm)
    init_validation_tqdm = _on_standard_error(TQDMProgressBar.init_validation_tqdm)
    init_test_tqdm = _on_standard_error(TQDMProgressBar.init_test_tqdm)
    init_predict_tqdm = _on_standard_error(TQDMProgressBar.init_predict_tqdm)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training:
            now = time.monotonic()
            if self._loss is None or now - self._loss[0] >= 1:
                self._loss = (now, float(trainer.callback_metrics.get("train/loss", float("nan"))))
            metrics = {"train/loss": self._loss[1], **metrics}
        return dict(metrics)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        for name in ("_train_progress_bar", "_val_progress_bar", "_test_progress_bar", "_predict_progress_bar"):
            bar = getattr(self, name, None)
            if bar is not None:
                bar.close()
