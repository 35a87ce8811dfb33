"""Diffusion models of waveforms: telling the noise from the signal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.training.finetuning import FinetuningConfig
from ...core.training.metrics import MeanLoss
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from .base import AudioTask


class NoiseMetrics(MeanLoss):
    """Mean squared error of the predicted noise over a whole set."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.batches = name, 0

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Return ``loss``.

        Raises:
            UserError: the set has no sample.
        """
        if self.compute_count() == 0:
            raise UserError(f"the {self.name} set has no sample")
        return {"loss": super().compute()}


class WaveformDiffusion(AudioTask):
    """Train a denoising diffusion model (DiffWave, Kong et al. 2021, arXiv:2009.09761) on waveforms.

    With the model's linear schedule β and ᾱ_t the product of 1 - β up to t: draw t evenly and noise ε, show the model
    √ᾱ_t x + √(1 - ᾱ_t) ε and t, and take the mean squared error of what it says ε was. Evaluation draws t and ε anew
    from a fixed seed, the same in every epoch.

    Args:
        model, options, pretrained, optimizer, schedule, finetuning: as for `AudioTask`.
    """

    def __init__(
        self,
        model: str = "diffwave_sashimi",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        return self._errors(batch["input_ids"], None).mean()

    def start_evaluation(self, name: str) -> NoiseMetrics:
        return NoiseMetrics(name).to(self.device)

    def update_evaluation(self, evaluation: Any, batch: Mapping[str, Any]) -> None:
        seed = int.from_bytes(hashlib.sha256(f"{evaluation.name} {evaluation.batches}".encode()).digest()[:4], "big")
        evaluation.batches += 1
        errors = self._errors(batch["input_ids"], torch.Generator().manual_seed(seed))
        padding = batch.get("padding")
        evaluation.update(errors if padding is None else errors[~padding.to(errors.device)])

    def _errors(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the mean squared error of each clip (batch, frames, 1), float32 (batch,)."""
        schedule: Any = self.model.schedule
        where = clean.device if generator is None else torch.device("cpu")
        steps = torch.randint(len(schedule), (len(clean),), device=where, generator=generator).to(clean.device)
        noise = torch.randn(clean.shape, device=where, generator=generator).to(clean.device)
        noisy = schedule.add_noise(clean, steps, noise)
        return (self.model(noisy, steps).float() - noise).square().mean((1, 2))
