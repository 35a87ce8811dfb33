"""Forecasts as a table of tab-separated values with several rows for each window."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from ...core.training.callbacks import PredictionTable


class WindowTable(PredictionTable):
    """Writes as `PredictionTable` does; ``prediction_rows`` gives a list of rows for each window, in order."""

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for rows in pl_module.prediction_rows(outputs, batch):
            self._write(rows)
