"""Classification of raw audio with S4, at any sampling rate (Gu et al. 2022, arXiv:2111.00396, section 4.3)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.heads import ClassificationHead, HeadConfig
from ...core.mixers import create_mixer
from ...core.mixers.state_space_convolution import StateSpaceMixer
from ...core.norms import LayerNorm
from ...core.registry import ModelEntry, register_architecture, register_model


@dataclass(frozen=True, kw_only=True)
class S4ClassifierConfig(HeadConfig):
    """Dimensions of an :class:`S4Classifier`; defaults are the published recipe for Speech Commands."""

    head: Literal["language_model", "classification"] = "classification"
    """Always a classification head."""
    num_classes: int | None = 35
    """Number of classes, 35 words by default; taken from ``class_names`` where those are given."""
    in_channels: int = 1
    """Channels of the audio (or features of each frame)."""
    d_model: int = 128
    """Width."""
    n_layers: int = 6
    """State space blocks."""
    mixer: Literal["s4", "s4d"] = "s4"
    """The state space layer."""
    d_state: int = 64
    """Size of its states."""
    bidirectional: bool = True
    """Look both ways."""
    n_ssm: int | None = 2
    """Sets of A and B in a layer; ``None`` for one for each feature."""
    layer: dict[str, Any] = field(default_factory=dict)
    """Further options of the mixer."""
    norm: Literal["batch", "layer"] = "batch"
    """Over the batch and all positions, or over the features of each position."""
    prenorm: bool = True
    """The norm before the layer, and one more at the end; otherwise behind each residual addition."""
    dropout: float = 0.0
    """Of whole features, in training, inside the layer and of what it adds."""
    pool: list[int] = field(default_factory=list)
    """Between equal stages of the layers, how many positions are averaged into one: ``[4, 4]`` has three stages, the
    last at a sixteenth of the rate. At another sampling rate as many positions are averaged as last as long, so that
    the later stages run at the rate they were trained at. The published recipe has none."""
    expand: int = 1
    """Factor on the width at each pool."""
    sample_rate: int = 16000
    """Of the audio that the model was trained on, in Hz."""

    def __post_init__(self) -> None:
        if self.class_names is not None:
            object.__setattr__(self, "num_classes", len(self.class_names))
        super().__post_init__()
        if self.head != "classification":
            raise UserError(f"head is {self.head!r}; an S4Classifier has a classification head")
        if self.norm not in ("batch", "layer"):
            raise UserError(f"norm is {self.norm!r}; expected 'batch' or 'layer'")
        for name in ("in_channels", "d_model", "n_layers", "sample_rate", "expand"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1")
        if any(factor < 2 for factor in self.pool) or self.n_layers % (len(self.pool) + 1):
            raise UserError(
                f"pool is {list(self.pool)} with n_layers {self.n_layers}; expected factors of at least 2, and the "
                f"layers to divide into {len(self.pool) + 1} equal stages"
            )


class _BatchNorm(nn.BatchNorm1d):
    """Batch norm of (batch, length, features) over the real positions, in float32 at least."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training:
            return super().forward(x.flatten(0, 1)).view_as(x)
        # Weighted sums in place of picking the real positions, whose number the host would have to wait for.
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None  # noqa: PT018
        real = mask.unsqueeze(-1)
        wide = x if x.dtype == torch.float64 else x.float()
        count = real.sum().clamp(min=1)
        mean = (wide * real).sum((0, 1)) / count
        centred = (wide - mean) * real
        variance = centred.square().sum((0, 1)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((centred * scale + self.bias) * real).to(x.dtype)


class ClassifierBlock(nn.Module):
    """``x + S4(norm(x))`` or ``norm(x + S4(x))``."""

    def __init__(self, config: S4ClassifierConfig, d_model: int) -> None:
        super().__init__()
        self.prenorm, self.dropout = config.prenorm, config.dropout
        self.norm = _norm(config, d_model)
        self.mixer = create_mixer(
            config.mixer,
            d_model,
            **{
                "d_state": config.d_state,
                "bidirectional": config.bidirectional,
                "n_ssm": config.n_ssm,
                "dropout": config.dropout,
                "tie_dropout": True,
                **config.layer,
            },
        )

    def forward(self, x: Tensor, mask: Tensor | None, rate: float) -> Tensor:
        """(batch, length, d_model) to the same shape; padding never reaches real positions."""
        inner = _apply(self.norm, x, mask) if self.prenorm else x
        if mask is not None:
            inner = inner * mask.unsqueeze(-1)
        assert isinstance(self.mixer, StateSpaceMixer)
        added = self.mixer(inner, rate=self.mixer.rate * rate)
        if self.training and self.dropout:
            # The same features at every position, so that the layer's long memory cannot see around it.
            added = added * F.dropout(added.new_ones(added.shape[0], 1, added.shape[2]), self.dropout)
        x = x + added
        return x if self.prenorm else _apply(self.norm, x, mask)


class AveragePool(nn.Module):
    """Means over ``factor`` neighbouring real positions, then a linear map to another width.

    Where the positions lie ``rate`` times further apart than in training, ``factor / rate`` of them last as long and
    are averaged, as far as that is a whole number.
    """

    def __init__(self, factor: int, d_model: int, width: int) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(d_model, width)

    def forward(self, x: Tensor, mask: Tensor | None, rate: float = 1.0) -> tuple[Tensor, Tensor, float]:
        """Return (batch, ceil(length / averaged), width), where real positions were among them, and their rate.

        Args:
            x: hidden sequence (batch, length, d_model).
            mask: (batch, length) bool, true at real positions; all are where None.
            rate: factor on the step sizes before the pool.
        """
        averaged = max(1, round(self.factor / rate))
        mask = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        missing = -x.shape[1] % averaged
        x = F.pad(x * mask.unsqueeze(-1), (0, 0, 0, missing)).unflatten(1, (-1, averaged))
        count = F.pad(mask, (0, missing)).unflatten(1, (-1, averaged)).sum(2)
        mean = x.sum(2, dtype=torch.float32) / count.clamp(min=1).unsqueeze(-1)
        return self.linear(mean.to(x.dtype)), count > 0, rate * averaged / self.factor


@register_architecture("S4Classifier", S4ClassifierConfig)
class S4Classifier(nn.Module):
    """Linear encoder, S4 or S4D blocks, mean over the real positions, linear head.

    ``forward`` maps samples (batch, length, in_channels) or (batch, length) to logits (batch, num_classes). A model
    trained at one sampling rate reads another with ``rate`` = trained rate / rate of the input: 2 for audio of 8 kHz in
    a model of 16 kHz.

    Args:
        config: dimensions.
    """

    def __init__(self, config: S4ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Linear(config.in_channels, config.d_model)
        self.layers_of_a_stage = config.n_layers // (len(config.pool) + 1)
        widths = [config.d_model * config.expand**stage for stage in range(len(config.pool) + 1)]
        self.blocks = nn.ModuleList(
            ClassifierBlock(config, widths[layer // self.layers_of_a_stage]) for layer in range(config.n_layers)
        )
        self.pools = nn.ModuleList(
            AveragePool(factor, *widths[stage : stage + 2]) for stage, factor in enumerate(config.pool)
        )
        self.norm = _norm(config, widths[-1]) if config.prenorm else None
        self.head = ClassificationHead(widths[-1], config)

    def forward(self, x: Tensor, mask: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """Return logits (batch, num_classes).

        Args:
            x: (batch, length, in_channels), or (batch, length) where in_channels is 1.
            mask: (batch, length) bool, true at real samples; padding does not influence the logits.
            rate: factor on the step sizes, the model's sampling rate / that of the input.

        Raises:
            UserError: for another number of channels.
        """
        return self.head(*self._features(x, mask, rate))

    def forward_features(self, x: Tensor, mask: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """Return the sequence after the last block (and norm), (batch, length after pools, width of the last stage)."""
        return self._features(x, mask, rate)[0]

    def _features(self, x: Tensor, mask: Tensor | None, rate: float) -> tuple[Tensor, Tensor | None]:
        x = x.unsqueeze(-1) if x.ndim == 2 else x
        if x.shape[-1] != self.config.in_channels:
            raise UserError(f"the audio has {x.shape[-1]} channels, this model reads {self.config.in_channels}")
        mask = None if mask is None else mask.bool()
        x = self.encoder(x.to(self.encoder.weight.dtype))
        for layer, block in enumerate(self.blocks):
            if layer and layer % self.layers_of_a_stage == 0:
                x, mask, rate = self.pools[layer // self.layers_of_a_stage - 1](x, mask, rate)
            x = block(x, mask, rate)
        return (x if self.norm is None else _apply(self.norm, x, mask)), mask

    def forward_head(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits of the hidden sequence; ``mask`` is that of its positions."""
        return self.head(features, mask)

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": "S4Classifier", "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)


def _norm(config: S4ClassifierConfig, d_model: int) -> nn.Module:
    return _BatchNorm(d_model) if config.norm == "batch" else LayerNorm(d_model)


def _apply(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    return norm(x, mask) if isinstance(norm, _BatchNorm) else norm(x)


def _register(name: str, description: str, **options: Any) -> None:
    register_model(
        ModelEntry(
            name=name,
            domain="audio",
            config=partial(S4ClassifierConfig, **options),
            architecture="S4Classifier",
            description=description,
        )
    )


_register("s4_classifier", "S4, 6 layers of width 128, the published recipe for Speech Commands")
_register("s4d_classifier", "S4D, 6 layers of width 128, for Speech Commands", mixer="s4d", n_ssm=None)
