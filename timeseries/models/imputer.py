"""Missing values of series, from both sides: linear interpolation, and what a stack of mixers adds to it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.backbone import Backbone, BackboneConfig
from ...core.errors import UserError
from ...core.registry import ModelEntry, register_architecture, register_model
from .scaling import Scaling, ScalingKind, known_mask


@dataclass(frozen=True, kw_only=True)
class SeriesImputerConfig:
    """Dimensions of a :class:`SeriesImputer`."""

    variates: int = 1
    """Number of variates (channels), read together."""
    channels: tuple[str, ...] = ()
    """Their names; empty for a model of any single channel."""
    window: int = 96
    """Steps read at a time."""
    scaling: ScalingKind = "standard"
    """``none``, ``standard`` (of training rows, see ``fit_scaling``), ``instance`` or ``robust``."""
    d_model: int = 64
    """Width."""
    n_layers: int = 2
    """Blocks."""
    mixer: Any = field(default_factory=lambda: {"name": "bidirectional", "mixer": "s4d"})
    """Name of a mixer, or a mapping of its name and options."""
    kernel: int = 7
    """Width of the convolution that makes features of the values; odd."""
    dropout: float = 0.0
    """In the blocks."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        for name in ("variates", "window", "d_model", "n_layers", "kernel"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.kernel % 2 == 0:
            raise UserError(f"kernel={self.kernel} must be odd, so that it is centred")
        if self.channels and len(self.channels) != self.variates:
            raise UserError(f"channels has {len(self.channels)} names, variates is {self.variates}")


@register_architecture("SeriesImputer", SeriesImputerConfig)
class SeriesImputer(nn.Module):
    """An estimate of every value of a window from those observed, of all variates.

    Read are the interpolated values, what is observed, and how far the nearest observations lie; the output is added
    to the interpolation, from which an untrained model does not differ.

    Args:
        config: dimensions.
    """

    architecture = "SeriesImputer"

    def __init__(self, config: SeriesImputerConfig) -> None:
        super().__init__()
        self.config = config
        self.scaling = Scaling(config.scaling, config.variates)
        self.embed = nn.Conv1d(3 * config.variates, config.d_model, config.kernel, padding=config.kernel // 2)
        self.backbone = Backbone(
            BackboneConfig(
                d_model=config.d_model,
                layers=[{"mixer": config.mixer}],
                repeat=config.n_layers,
                dropout=config.dropout,
            )
        )
        self.output = nn.Linear(config.d_model, config.variates)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def fit_scaling(self, values: Tensor, observed: Tensor | None = None) -> None:
        """Store mean and deviation of the training rows, (rows, variates), NaN where missing."""
        self.scaling.fit(values, observed)

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return estimates of every cell in units of the data, float64 (batch, time, variates).

        Args:
            x: (batch, time, variates), NaN where missing.
            observed: bool of that shape, False where missing.

        Raises:
            UserError: another number of variates.
        """
        return self.estimate(x, observed)[0]

    def estimate(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` does, and the scale of each window, float64 (batch, 1, variates)."""
        if x.dim() != 3 or x.shape[2] != self.config.variates:
            raise UserError(f"series of shape {tuple(x.shape)}, expected (batch, time, {self.config.variates})")
        known = known_mask(x, observed)
        values = torch.where(known, x, 0.0)
        scale = self.scaling.measure(values, known)
        line, distance = interpolated(torch.where(known, self.scaling.apply(values, scale), 0.0), known)
        features = torch.cat([line, known.to(line), torch.log1p(distance)], -1)
        hidden = self.backbone(self.embed(features.transpose(1, 2)).transpose(1, 2))
        estimate = line + self.output(hidden).to(line)
        return estimate.double() * scale.scale + scale.location, scale.scale

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": self.architecture, "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)


def interpolated(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return linear interpolations along time, and the steps to the nearest known one, both (batch, time, variates).

    Before the first and after the last known value that value is repeated; where none is known, 0 and the length.

    Args:
        values: (batch, time, variates), anything where not known.
        known: bool of that shape.
    """
    length = values.shape[1]
    time = torch.arange(length, device=values.device).view(1, -1, 1).expand(values.shape)
    before = torch.where(known, time, -1).cummax(1).values
    after = torch.where(known, time, length).flip(1).cummin(1).values.flip(1)
    left, right = before >= 0, after < length
    first = values.gather(1, before.clamp(min=0))
    last = values.gather(1, after.clamp(max=length - 1))
    share = (time - before) / (after - before).clamp(min=1)
    line = torch.where(left & right, first + (last - first) * share.to(values), torch.where(left, first, last))
    line = torch.where(left | right, line, 0.0)
    far = torch.full_like(time, length)
    distance = torch.minimum(torch.where(left, time - before, far), torch.where(right, after - time, far))
    return torch.where(known, values, line), distance.to(values)


register_model(
    ModelEntry(
        name="series_imputer",
        domain="timeseries",
        config=SeriesImputerConfig,
        architecture="SeriesImputer",
        description="missing values from both sides: S4D in both directions over windows of 96 steps",
    )
)
