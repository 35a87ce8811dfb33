"""The weights of the best validation, kept in memory."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from .validate_first import validate_now


class BestWeights(Callback):
    """Keeps weights and card of the validation with the least ``val/loss``, that of the start (step 0) among them;
    without validation the last ones stay."""

    def __init__(self) -> None:
        self.loss = math.inf
        self.history: list[tuple[int, dict[str, float]]] = []
        self._kept: tuple[dict[str, torch.Tensor], Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        validate_now(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.history.append((trainer.global_step, values))
        loss = values.get("val/loss", math.inf)
        if loss < self.loss:
            self.loss = loss
            weights = {name: tensor.detach().clone() for name, tensor in pl_module.state_dict().items()}
            self._kept = weights, getattr(pl_module, "card", None)

    def restore(self, module: Any) -> None:
        """Put them back."""
        if self._kept is not None:
            module.load_state_dict(self._kept[0])
            module.card = self._kept[1]
