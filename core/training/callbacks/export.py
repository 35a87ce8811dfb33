"""The trained model as a folder that ``from_pretrained`` loads."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from .checkpoint import BestCheckpoint


class ExportModel(Callback):
    """At the end of ``fit``, write the best checkpoint's model to ``model/`` in the folder of the run.

    Does nothing for a model without ``model_config()``.
    """

    def __init__(self) -> None:
        self.written: list[str] = []

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from ...pretrained import from_pretrained, save_pretrained

        if not hasattr(pl_module.model, "model_config"):
            return
        best = next((c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), "")
        if best:
            folder = Path(trainer.default_root_dir) / "model"
            save_pretrained(from_pretrained(Path(best)), folder)
            self.written = [str(folder)]
