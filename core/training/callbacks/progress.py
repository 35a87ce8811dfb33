"""The progress bar, with rate and time left."""

from __future__ import annotations

import sys
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
    """Lightning's bar on standard error, without the logger's version, and closed before an error is told."""

    init_sanity_tqdm = _on_standard_error(TQDMProgressBar.init_sanity_tqdm)
    init_train_tqdm = _on_standard_error(TQDMProgressBar.init_train_tqdm)
    init_validation_tqdm = _on_standard_error(TQDMProgressBar.init_validation_tqdm)
    init_test_tqdm = _on_standard_error(TQDMProgressBar.init_test_tqdm)
    init_predict_tqdm = _on_standard_error(TQDMProgressBar.init_predict_tqdm)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return dict(metrics)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        for name in ("_train_progress_bar", "_val_progress_bar", "_test_progress_bar", "_predict_progress_bar"):
            bar = getattr(self, name, None)
            if bar is not None:
                bar.close()
