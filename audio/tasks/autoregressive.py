"""Autoregressive modelling of waveforms: the code of each sample from those before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.training.finetuning import FinetuningConfig
from ...core.training.metrics import IGNORED, TokenMetrics
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ...core.training.tasks import LanguageModelTask
from ..generation import is_causal
from .base import AudioTask


class CodeMetrics(TokenMetrics):
    """Loss in nats, ``bits`` per sample and accuracy of codes over a whole set."""

    def compute(self) -> dict[str, Tensor]:
        """Return loss, bits and accuracy.

        Raises:
            UserError: the set has no sample.
        """
        found = super().compute()
        return {"loss": found["loss"], "bits": found["bits_per_token"], "accuracy": found["accuracy"]}


class WaveformModeling(AudioTask, LanguageModelTask):
    """Predict the code of the next sample, on an `AudioTokenDataModule`.

    Measured: ``loss`` (nats per sample), ``bits`` (per sample) and ``accuracy``, every sample of a set counting once.
    `predict` writes the likelihood of each recording (or window of ``data.eval_length`` frames).

    Args:
        model, options, pretrained, optimizer, schedule, finetuning: as for `AudioTask`.
    """

    def __init__(
        self,
        model: str = "sashimi_small",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)

    def configure_model(self) -> None:
        """Build or load the model, as `AudioTask` does.

        Raises:
            UserError: a model that looks in both directions, to which the next sample is no secret.
        """
        super().configure_model()
        if not is_causal(self.model):
            raise UserError(
                f"model {self.model_name} looks in both directions and sees what it predicts; make it causal"
            )

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (batch, frames, codes) of codes (batch, frames); padding is at the end, where it is unseen."""
        return self.model(input_ids)

    def start_evaluation(self, name: str) -> CodeMetrics:
        return CodeMetrics(name).to(self.device)

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return for each row its log-likelihood in nats and the number of its samples, (batch, 2) float64."""
        logits, labels = self(batch["input_ids"]).float(), batch["labels"]
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none"
        ).view(labels.shape)
        return torch.stack([-losses.double().sum(1), (labels != IGNORED).sum(1).double()], 1)

    def prediction_columns(self) -> list[str]:
        return ["name", "start", "samples", "log_likelihood", "bits_per_sample"]

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
        for name, start, (total, count) in zip(
            batch["name"], batch["start"].tolist(), prediction.tolist(), strict=True
        ):
            yield name, start, int(count), f"{total:.4f}", f"{-total / max(count, 1) / math.log(2):.6f}"
