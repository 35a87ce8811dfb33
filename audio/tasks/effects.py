"""Learning an audio effect from pairs of what went in and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.training.finetuning import FinetuningConfig
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ..metrics.spectral import MultiResolutionSTFT
from ..metrics.waveform import EffectMetrics, error_to_signal_ratio, mean_absolute_error
from .base import AudioTask


class WeighedEffectMetrics(EffectMetrics):
    """Errors of an effect model with ``loss``, that of training."""

    def __init__(self, name: str, stft_weight: float, esr_weight: float) -> None:
        super().__init__(name)
        self.stft_weight, self.esr_weight = stft_weight, esr_weight

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name.

        Raises:
            UserError: the set has no sample, or its targets are silent.
        """
        found = super().compute()
        loss = found["mae"] + self.stft_weight * found["stft"] + self.esr_weight * found["esr"]
        return {"loss": loss, **found}


class EffectRegression(AudioTask):
    """Reproduce an effect with its controls, on an `EffectDataModule` or a `CompressorDataModule`.

    The loss is the mean absolute error plus the multi-resolution spectral distance (the recipe of arXiv:2403.16331),
    and where wanted the error-to-signal ratio. Energies of the latter are summed over the batch before they are
    divided, so that windows of near silence do no harm.
    Measured: ``loss``, ``mae``, ``esr`` (energy of the error over that of the target), ``esr_pre_emphasis``, ``dc``
    and ``stft``.

    Args:
        stft_weight: factor of the spectral distance.
        esr_weight: factor of the error-to-signal ratio.
        warmup: frames at the beginning of each training window that do not count in the loss: a recurrent model begins
            with an empty state where the recorded effect had not.
        model, options, pretrained, optimizer, schedule, finetuning: as for `AudioTask`.
    """

    def __init__(
        self,
        model: str = "s4_compressor",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        stft_weight: float = 1.0,
        esr_weight: float = 0.0,
        warmup: int = 0,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)
        if stft_weight < 0 or esr_weight < 0 or warmup < 0:
            raise UserError(
                f"stft_weight {stft_weight}, esr_weight {esr_weight} and warmup {warmup} must not be negative"
            )
        self.stft_weight, self.esr_weight, self.warmup = stft_weight, esr_weight, warmup
        self.distance = MultiResolutionSTFT()

    def forward(self, input_ids: Tensor, mask: Tensor | None = None, controls: Tensor | None = None) -> Tensor:
        """Return the processed samples (batch, frames, channels) of samples and controls (batch, controls)."""
        return self.model(input_ids, controls if self.card is None or self.card.controls else None)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        target, mask = batch["labels"], batch.get("mask")
        output = self(batch["input_ids"], controls=batch["controls"]).float()
        if self.warmup:
            if self.warmup >= output.shape[1]:
                raise UserError(
                    f"warmup {self.warmup} leaves nothing of a window of {output.shape[1]} frames; lower it"
                )
            output, target = output[:, self.warmup :], target[:, self.warmup :]
            mask = None if mask is None else mask[:, self.warmup :]
        total = mean_absolute_error(output, target, mask)
        if self.stft_weight:
            kept = output if mask is None else torch.where(mask[..., None], output, 0.0)
            total = total + self.stft_weight * self.distance(kept, target)
        if self.esr_weight:
            total = total + self.esr_weight * error_to_signal_ratio(output, target, mask)
        return total

    def start_evaluation(self, name: str) -> WeighedEffectMetrics:
        return WeighedEffectMetrics(name, self.stft_weight, self.esr_weight).to(self.device)

    def update_evaluation(self, evaluation: Any, batch: Mapping[str, Any]) -> None:
        mask, padding = batch.get("mask"), batch.get("padding")
        if padding is not None:
            frames = batch["labels"].shape[:2]
            mask = torch.ones(frames, dtype=torch.bool, device=self.device) if mask is None else mask
            mask = mask & ~padding.to(mask.device)[:, None]
        evaluation.update(self(batch["input_ids"], controls=batch["controls"]), batch["labels"], mask)

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the mean absolute error and the error-to-signal ratio of each row, (batch, 2)."""
        output = self(batch["input_ids"], controls=batch["controls"])
        rows = []
        for row in range(len(output)):
            one = slice(row, row + 1)
            mask = None if batch.get("mask") is None else batch["mask"][one]
            pair = output[one], batch["labels"][one]
            rows.append(torch.stack([mean_absolute_error(*pair, mask), error_to_signal_ratio(*pair, mask)]))
        return torch.stack(rows)

    def prediction_columns(self) -> list[str]:
        return ["name", "mae", "esr"]

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
        for name, (absolute, ratio) in zip(batch["name"], prediction.tolist(), strict=True):
            yield name, f"{absolute:.6g}", f"{ratio:.6g}"
