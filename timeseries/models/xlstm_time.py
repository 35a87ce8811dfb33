"""xLSTMTime: decomposition, linear maps and a stack of xLSTM layers over variates (Alharthi and Mahmood 2024,
arXiv:2407.10240)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.backbone import Backbone, BackboneConfig
from ...core.errors import UserError
from ...core.registry import ModelEntry, register_architecture, register_model
from .base import Forecaster, ForecasterConfig, ForecastInputs, PointLoss


@dataclass(frozen=True, kw_only=True)
class XLSTMTimeConfig(ForecasterConfig):
    """Dimensions of an :class:`XLSTMTime`; defaults are the published ones."""

    lookback: int = 512
    """Steps read."""
    horizon: int = 96
    """Steps predicted."""
    affine: bool = True
    """A learned scale and shift (RevIN's)."""
    point_loss: PointLoss = "mae"
    """Of a point head."""
    d_model: int = 256
    """Width of the xLSTM."""
    n_layers: int = 3
    """Blocks."""
    mixer: Any = "slstm"
    """``slstm`` (published), ``mlstm`` or any other mixer, by name or as a mapping of name and options."""
    kernel: int = 25
    """Steps of the moving average that is the trend; odd."""
    dropout: float = 0.1
    """In the blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("d_model", "n_layers", "kernel"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.kernel % 2 == 0:
            raise UserError(f"kernel={self.kernel} must be odd, so that the average is centred")
        if self.past_covariates or self.future_covariates or self.static_covariates:
            raise UserError("xLSTMTime reads no covariates; leave their numbers 0")


@register_architecture("XLSTMTime", XLSTMTimeConfig)
class XLSTMTime(Forecaster):
    """Trend and remainder are each mapped to the horizon, and their sum is refined with the other variates in view::

        y = linear(x - trend) + linear(trend)           both weights start at 1 / lookback
        output = linear(xLSTM(linear(y)))               a token for each variate

    The tokens are the variates in their order, so that a causal mixer lets each see the ones before it alone.

    Args:
        config: dimensions.
    """

    architecture = "XLSTMTime"
    config: XLSTMTimeConfig

    def __init__(self, config: XLSTMTimeConfig) -> None:
        super().__init__(config)
        self.seasonal = nn.Linear(config.lookback, config.horizon)
        self.trend = nn.Linear(config.lookback, config.horizon)
        for linear in (self.seasonal, self.trend):
            nn.init.constant_(linear.weight, 1 / config.lookback)
        self.embed = nn.Linear(config.horizon, config.d_model)
        self.backbone = Backbone(
            BackboneConfig(
                d_model=config.d_model,
                layers=[config.mixer],
                repeat=config.n_layers,
                norm="layernorm",
                dropout=config.dropout,
            )
        )
        self.output = nn.Linear(config.d_model, config.horizon * self.head.size)

    def network(self, inputs: ForecastInputs, horizon: int) -> Tensor:
        """See :meth:`Forecaster.network`."""
        series = inputs.values.transpose(1, 2)
        half = self.config.kernel // 2
        trend = F.avg_pool1d(F.pad(series, (half, half), mode="replicate"), self.config.kernel, 1)
        rough = self.seasonal(series - trend) + self.trend(trend)
        raw = self.output(self.backbone(self.embed(rough)))
        return raw.unflatten(-1, (self.config.horizon, self.head.size)).transpose(1, 2)[:, :horizon]


register_model(
    ModelEntry(
        name="xlstm_time",
        domain="timeseries",
        config=XLSTMTimeConfig,
        architecture="XLSTMTime",
        description="trend, remainder and 3 sLSTM layers over variates, the published sizes",
    )
)
