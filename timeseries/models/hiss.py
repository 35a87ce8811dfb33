"""HiSS: hierarchical state space models from sensor readings to slower targets (Bhirangi et al. 2024,
arXiv:2402.10211)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.backbone import Backbone, BackboneConfig
from ...core.errors import UserError
from ...core.registry import ModelEntry, register_architecture, register_model
from .scaling import Scaling, known_mask


@dataclass(frozen=True, kw_only=True)
class HiSSConfig:
    """Dimensions of a :class:`HiSS`; defaults are the published ones."""

    inputs: int = 1
    """Channels of the sensor."""
    targets: int = 1
    """Channels of the targets."""
    ratio: int = 10
    """Readings for each target."""
    low_mixer: Any = "s4"
    """Mixer within chunks, by name or as a mapping of its name and options."""
    high_mixer: Any = "mamba"
    """Mixer over chunks."""
    low_width: int = 256
    """Width within chunks."""
    high_width: int = 128
    """Width over chunks."""
    low_layers: int = 6
    """Blocks within chunks."""
    high_layers: int = 6
    """Blocks over chunks."""
    differences: bool = True
    """Append the difference to the reading before to each reading."""
    dropout: float = 0.1
    """In the blocks."""

    def __post_init__(self) -> None:
        for name in ("inputs", "targets", "ratio", "low_width", "high_width", "low_layers", "high_layers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")


@register_architecture("HiSS", HiSSConfig)
class HiSS(nn.Module):
    """A stack over the readings of each chunk, whose last output is the chunk's feature, and one over the features.

    ``forward`` maps readings (batch, length, inputs) to targets (batch, length / ratio, targets), both in units of the
    data: ``fit_scaling`` stores mean and deviation of the training readings and targets.

    Args:
        config: dimensions.
    """

    architecture = "HiSS"

    def __init__(self, config: HiSSConfig) -> None:
        super().__init__()
        self.config = config
        self.input_scaling = Scaling("standard", config.inputs)
        self.target_scaling = Scaling("standard", config.targets)
        self.embed = nn.Linear(config.inputs * (2 if config.differences else 1), config.low_width)
        self.low = _stack(config.low_width, config.low_mixer, config.low_layers, config.dropout)
        self.join = nn.Linear(config.low_width, config.high_width)
        self.high = _stack(config.high_width, config.high_mixer, config.high_layers, config.dropout)
        self.output = nn.Linear(config.high_width, config.targets)

    def fit_scaling(self, readings: Tensor, targets: Tensor) -> None:
        """Store mean and deviation of training readings (rows, inputs) and targets (rows, targets)."""
        self.input_scaling.fit(readings)
        self.target_scaling.fit(targets)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return targets (batch, length / ratio, targets) in units of the data.

        Args:
            x: readings (batch, length, inputs), NaN where missing (the mean stands in). What does not fill a chunk at
                the end is left out.
            mask: (batch, length) bool, True at real readings; padding lies behind them.

        Raises:
            UserError: another number of channels, or less than one chunk.
        """
        scale = self.target_scaling.measure(x.new_zeros(1, 1, self.config.targets), x.new_ones(1, 1, 1).bool())
        return (scale.location + scale.scale * self._scaled(x, mask).double()).to(x.dtype)

    def _scaled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        config = self.config
        if x.dim() != 3 or x.shape[2] != config.inputs or x.shape[1] < config.ratio:
            raise UserError(
                f"readings of shape {tuple(x.shape)}, expected (batch, {config.ratio} or more, {config.inputs})"
            )
        known = known_mask(x, mask)
        scaled = self.input_scaling.apply(torch.where(known, x, 0.0), self.input_scaling.measure(x, known))
        scaled = torch.where(known, scaled, 0.0)
        if config.differences:
            change = functional.pad(scaled[:, 1:] - scaled[:, :-1], (0, 0, 1, 0))
            scaled = torch.cat([scaled, change], -1)
        chunks = scaled.shape[1] // config.ratio
        pieces = scaled[:, : chunks * config.ratio].unflatten(1, (chunks, config.ratio)).flatten(0, 1)
        feature = self.low(self.embed(pieces))[:, -1].unflatten(0, (-1, chunks))
        return self.output(self.high(self.join(feature)))

    def loss(
        self, x: Tensor, target: Tensor, mask: Tensor | None = None, target_observed: Tensor | None = None
    ) -> Tensor:
        """Return the mean squared error over observed targets, in squared deviations of the training targets.

        Args:
            x, mask: as in ``forward``.
            target: (batch, length / ratio, targets), NaN where missing.
            target_observed: bool of that shape or (batch, length / ratio).
        """
        known = known_mask(target, target_observed)
        error = (self(x, mask) - torch.where(known, target, 0.0)) / self.target_scaling.std.to(x.dtype)
        return torch.where(known, error.square(), 0.0).sum() / known.sum().clamp(min=1)

    @torch.no_grad()
    def predict(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``forward`` in evaluation mode."""
        training = self.training
        self.eval()
        try:
            return self(x, mask)
        finally:
            self.train(training)

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": self.architecture, "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)


def _stack(width: int, mixer: Any, layers: int, dropout: float) -> Backbone:
    return Backbone(BackboneConfig(d_model=width, layers=[mixer], repeat=layers, norm="layernorm", dropout=dropout))


register_model(
    ModelEntry(
        name="hiss",
        domain="timeseries",
        config=HiSSConfig,
        architecture="HiSS",
        description="sensor readings to slower targets: S4 within chunks of 10, Mamba over chunks",
    )
)
