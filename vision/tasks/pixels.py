"""Autoregressive modelling of images, intensity by intensity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.training.finetuning import FinetuningConfig
from ...core.training.metrics import TokenMetrics
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ...core.training.tasks import LanguageModelTask
from ..data.pixels import LEVELS
from .base import VisionTask


class PixelMetrics(TokenMetrics):
    """Loss in nats, ``bits_per_dimension`` and accuracy of intensities over a whole set."""

    def compute(self) -> dict[str, Tensor]:
        """Return loss, bits_per_dimension and accuracy."""
        found = super().compute()
        return {
            "loss": found["loss"],
            "bits_per_dimension": found["bits_per_token"],
            "accuracy": found["accuracy"],
        }


class PixelModeling(VisionTask, LanguageModelTask):
    """Predict each intensity from those before it, on a `PixelSequenceDataModule`.

    Measured: ``bits_per_dimension`` (a dimension is one channel of one pixel), ``loss`` in nats, ``accuracy``.
    ``predict`` writes the bits per dimension of each image; `longscan.vision.generation` draws new ones.

    Args:
        model, options, pretrained, optimizer, schedule, finetuning: as for `VisionTask`; the model is one of codes,
            causal, such as ``LanguageModel`` with its ``backbone``.
    """

    def __init__(
        self,
        model: str = "LanguageModel",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)

    def configure_model(self) -> None:
        """Build or load the model, as `VisionTask` does.

        Raises:
            UserError: a model that looks ahead, to which the next intensity is no secret.
        """
        super().configure_model()
        if not getattr(getattr(self.model, "backbone", None), "causal", True):
            raise UserError(f"model {self.model_name} looks ahead and sees what it predicts; make its mixers causal")

    def fitting_options(self) -> dict[str, Any]:
        """Return the size of the vocabulary."""
        return {"vocab_size": LEVELS + 1}

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (batch, length, codes) of codes (batch, length)."""
        return self.model(input_ids)

    def start_evaluation(self, name: str) -> PixelMetrics:
        return PixelMetrics(name).to(self.device)

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the bits per dimension of each image, (batch,) float64."""
        logits, labels = self(batch["input_ids"]).float(), batch["labels"]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
        return losses.view(labels.shape).double().mean(1) / math.log(2)

    def prediction_columns(self) -> list[str]:
        return ["name", "bits_per_dimension"]

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
        for name, bits in zip(batch["name"], prediction.tolist(), strict=True):
            yield name, f"{bits:.6f}"
