"""The trained model as a folder that ``from_pretrained`` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from .checkpoint import BestCheckpoint


class ExportModel(Callback):
    """At the end of ``fit``, write the best checkpoint's model to ``model/`` in the folder of the run.

    Of a model with adapters (``finetuning.lora``) that are not to be merged, the adapters go to ``adapter/`` instead.
    Does nothing for a model without ``model_config()``. The card of the data that the checkpoint holds (`CardTask`) is
    written beside the weights, so that no verb has to be told anything else.
    """

    def __init__(self) -> None:
        self.written: list[str] = []

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from ...adapters import write_adapter
        from ...checkpoint_files import load_torch_file
        from ...pretrained import from_pretrained, save_pretrained

        if not hasattr(pl_module.model, "model_config"):
            return
        best = next((c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), "")
        record = getattr(pl_module.model, "lora_record", None)
        if best and record is not None and not record["merge"]:
            state = load_torch_file(Path(best))["state_dict"]
            tensors = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
            described: dict[str, Any] = pl_module.model.model_config()  # type: ignore[operator]
            self.written = [str(write_adapter(tensors, record, described, Path(trainer.default_root_dir) / "adapter"))]
        elif best:
            folder = Path(trainer.default_root_dir) / "model"
            save_pretrained(from_pretrained(Path(best)), folder)
            self.written = [str(folder)]
        card_type = getattr(pl_module, "card_type", None)
        card = card_type.read(Path(best)) if best and card_type is not None else None
        for written in self.written:
            if card is not None:
                card.write(Path(written))
