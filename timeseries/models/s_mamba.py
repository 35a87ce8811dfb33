"""S-Mamba: variates as tokens, mixed in both directions (Wang et al. 2024, arXiv:2403.11144)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.channel_mixers import MLP
from ...core.errors import UserError
from ...core.mixers import create_mixer
from ...core.registry import ModelEntry, register_architecture, register_model
from .base import Forecaster, ForecasterConfig, ForecastInputs


@dataclass(frozen=True, kw_only=True)
class SMambaConfig(ForecasterConfig):
    """Dimensions of an :class:`SMamba`; defaults are the published ones for ETTh1."""

    horizon: int = 96
    """Steps predicted."""
    d_model: int = 256
    """Width."""
    n_layers: int = 2
    """Blocks."""
    d_inner: int = 256
    """Hidden width of the MLPs."""
    mixer: Any = field(default_factory=lambda: {"name": "mamba", "d_state": 2, "d_conv": 2, "expand": 1})
    """Mixer of each direction: its name, or a mapping of its name and options."""
    dropout: float = 0.1
    """Of the tokens and in the MLPs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("d_model", "n_layers", "d_inner"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.future_covariates or self.static_covariates:
            raise UserError("S-Mamba reads covariates of the past alone; leave future_covariates, static_covariates 0")


class SMambaBlock(nn.Module):
    """``x = norm1(x + forward(x) + flip(reverse(flip(x))))``, then ``x = norm2(x + MLP(x))``."""

    def __init__(self, config: SMambaConfig) -> None:
        super().__init__()
        self.mixer = create_mixer("bidirectional", config.d_model, mixer=config.mixer)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.mlp = MLP(config.d_model, config.d_inner, "gelu")
        self.norm2 = nn.LayerNorm(config.d_model)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, d_model) to the same shape."""
        x = self.norm1(x + self.mixer(x))
        hidden = F.dropout(self.mlp.activation(self.mlp.fc1(x)), self.dropout, self.training)
        return self.norm2(x + F.dropout(self.mlp.fc2(hidden), self.dropout, self.training))


@register_architecture("SMamba", SMambaConfig)
class SMamba(Forecaster):
    """The whole lookback of each variate is a token, each column of covariates one more::

        tokens = dropout(linear(lookback))        blocks over tokens        output = linear(norm(tokens))

    The scan runs over the variates in their order, so that forecasts depend on it; that both directions are read
    softens this.

    Args:
        config: dimensions.
    """

    architecture = "SMamba"
    config: SMambaConfig

    def __init__(self, config: SMambaConfig) -> None:
        super().__init__(config)
        self.embed = nn.Linear(config.lookback, config.d_model)
        self.blocks = nn.ModuleList(SMambaBlock(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.output = nn.Linear(config.d_model, config.horizon * self.head.size)

    def network(self, inputs: ForecastInputs, horizon: int) -> Tensor:
        """See :meth:`Forecaster.network`."""
        variates = inputs.values.shape[2]
        tokens = self.embed(torch.cat([inputs.values, inputs.past], 2).transpose(1, 2))
        tokens = F.dropout(tokens, self.config.dropout, self.training)
        for block in self.blocks:
            tokens = block(tokens)
        raw = self.output(self.norm(tokens)[:, :variates])
        return raw.unflatten(-1, (self.config.horizon, self.head.size)).transpose(1, 2)[:, :horizon]


register_model(
    ModelEntry(
        name="s_mamba",
        domain="timeseries",
        config=partial(SMambaConfig),
        architecture="SMamba",
        description="variates as tokens, mixed by Mamba in both directions, 2 blocks of width 256",
    )
)
