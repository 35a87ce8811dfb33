"""Classification of whole series of any length, of one or many variates."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.backbone import Backbone, BackboneConfig
from ...core.errors import UserError
from ...core.heads import ClassificationHead
from ...core.registry import ModelEntry, register_architecture, register_model
from .classifier_config import ClassificationConfig
from .scaling import Scaling, known_mask


@dataclass(frozen=True, kw_only=True)
class SeriesClassifierConfig(ClassificationConfig):
    """Dimensions of a :class:`SeriesClassifier`."""

    least: ClassVar[dict[str, int]] = {"d_model": 1, "n_layers": 1, "kernel": 1}

    d_model: int = 64
    """Width."""
    n_layers: int = 4
    """Blocks."""
    mixer: Any = field(default_factory=lambda: {"name": "bidirectional", "mixer": "mamba"})
    """Name of a mixer, or a mapping of its name and options."""
    channel_mixer: Any = None
    """Name of a channel mixer, or a mapping of its name and options."""
    kernel: int = 7
    """Width of the convolution that makes features of the values; odd."""
    differences: bool = True
    """Read the change since the step before beside each value."""
    dropout: float = 0.1
    """In the blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise UserError(f"kernel={self.kernel} must be odd, so that it is centred")


@register_architecture("SeriesClassifier", SeriesClassifierConfig)
class SeriesClassifier(nn.Module):
    """A convolution over values (and their changes), a stack of mixers, a pool over the real steps, a linear map.

    Padding lies behind a series and influences nothing. What is missing within counts as the mean.

    Args:
        config: dimensions.
    """

    architecture = "SeriesClassifier"

    def __init__(self, config: SeriesClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.scaling = Scaling(config.scaling, config.variates)
        inputs = config.variates * (2 if config.differences else 1)
        self.embed = nn.Conv1d(inputs, config.d_model, config.kernel, padding=config.kernel // 2)
        self.backbone = Backbone(
            BackboneConfig(
                d_model=config.d_model,
                layers=[{"mixer": config.mixer, "channel_mixer": config.channel_mixer}],
                repeat=config.n_layers,
                dropout=config.dropout,
            )
        )
        self.head = ClassificationHead(config.d_model, config)

    def fit_scaling(self, values: Tensor, observed: Tensor | None = None) -> None:
        """Store mean and deviation of the training rows, (rows, variates), NaN where missing."""
        self.scaling.fit(values, observed)

    def forward(self, x: Tensor, mask: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """Return logits (batch, num_classes).

        Args:
            x: (batch, time, variates) in units of the data, NaN where missing.
            mask: bool (batch, time), True at real steps.
            observed: bool (batch, time, variates), False where missing.

        Raises:
            UserError: another number of variates.
        """
        return self.head(self.forward_features(x, mask, observed), mask)

    def forward_features(self, x: Tensor, mask: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """Return the sequence after the last norm, (batch, time, d_model); see ``forward``."""
        if x.dim() != 3 or x.shape[2] != self.config.variates:
            raise UserError(f"series of shape {tuple(x.shape)}, expected (batch, time, {self.config.variates})")
        known = known_mask(x, observed)
        if mask is not None:
            known = known & mask.bool().unsqueeze(-1)
        values = torch.where(known, x, 0.0)
        scaled = torch.where(known, self.scaling.apply(values, self.scaling.measure(values, known)), 0.0)
        if self.config.differences:
            both = known[:, 1:] & known[:, :-1]
            change = torch.where(both, scaled[:, 1:] - scaled[:, :-1], 0.0)
            scaled = torch.cat([scaled, nn.functional.pad(change, (0, 0, 1, 0))], -1)
        features = self.embed(scaled.transpose(1, 2)).transpose(1, 2)
        if mask is None or bool(mask.all()):
            return self.backbone(features)
        # Packed end to end, so that mixers in both directions never read padding.
        real = mask.bool()
        lengths = real.sum(1)
        if not torch.equal(real, torch.arange(x.shape[1], device=x.device) < lengths[:, None]):
            raise UserError("mask has padding before or within a series; put it behind")
        bounds = nn.functional.pad(lengths.cumsum(0), (1, 0))
        packed = self.backbone(features[real].unsqueeze(0), cu_seqlens=bounds)
        result = torch.zeros_like(features)
        result[real] = packed[0].to(result.dtype)
        return result

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": self.architecture, "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)


register_model(
    ModelEntry(
        name="series_classifier",
        domain="timeseries",
        config=SeriesClassifierConfig,
        architecture="SeriesClassifier",
        description="classes of whole series: Mamba in both directions, 4 layers of width 64",
    )
)
