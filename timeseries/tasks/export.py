"""The trained model as a folder that the verbs of time series read without being told anything else."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ...core.training.callbacks import BestCheckpoint, ExportModel
from ..card import read_card, write_card


class ExportTimeSeriesModel(ExportModel):
    """Writes ``model/`` as `ExportModel` does, with ``timeseries.json``, the best checkpoint's card, in it."""

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        best = next((c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), "")
        card = read_card(Path(best)) if best else None
        for folder in self.written:
            if card is not None:
                write_card(card, Path(folder))
