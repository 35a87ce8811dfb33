"""The trained model as a folder that the verbs of vision read without being told anything else."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ...core.training.callbacks import ExportModel
from ..card import VisionCard, write_card


class ExportVisionModel(ExportModel):
    """Writes ``model/`` as `ExportModel` does, with ``vision.json``, the card of the data, in it."""

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        card = getattr(pl_module, "card", None)
        for folder in self.written:
            if isinstance(card, VisionCard):
                write_card(card, Path(folder))
