"""The LTSF-Linear family (Zeng et al. 2023, arXiv:2205.13504) behind the interface of all forecasters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ...core.errors import UserError, nearest
from ...core.registry import ModelEntry, register_architecture, register_model
from ..baselines import linear
from .base import Forecaster, ForecasterConfig, ForecastInputs
from .scaling import ScalingKind

LinearKind = Literal["linear", "nlinear", "dlinear"]
_MODULES = {"linear": linear.Linear, "nlinear": linear.NLinear, "dlinear": linear.DLinear}


@dataclass(frozen=True, kw_only=True)
class LinearForecasterConfig(ForecasterConfig):
    """Dimensions of a :class:`LinearForecaster`."""

    lookback: int = 336
    """Steps read."""
    horizon: int = 96
    """Steps predicted."""
    scaling: ScalingKind = "standard"
    """See ``ForecasterConfig``; ``linear`` with ``instance`` is RLinear."""
    kind: LinearKind = "nlinear"
    """``linear``, ``nlinear`` or ``dlinear``."""
    individual: bool = False
    """A map for each variate; needs ``variates``."""
    initialization: linear.Initialization = "mean"
    """``mean``: all weights of the centre 1 / lookback, the others 0; ``torch``: uniform in ±1/√lookback."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in get_args(LinearKind):
            raise UserError(f"kind={self.kind!r} is unknown; {nearest(self.kind, get_args(LinearKind))}")
        if self.individual and self.variates is None:
            raise UserError("individual maps need the number of variates; give variates")


@register_architecture("LinearForecaster", LinearForecasterConfig)
class LinearForecaster(Forecaster):
    """One linear map from the lookback to the horizon for all variates (or one for each).

    ``maps.Linear``, or ``maps.Linear_Seasonal`` and ``maps.Linear_Trend``, carry the published names. With a
    head of several numbers the map has horizon · size outputs; NLinear adds the last value to the centre of the
    distribution alone.

    Args:
        config: dimensions.
    """

    architecture = "LinearForecaster"
    config: LinearForecasterConfig

    def __init__(self, config: LinearForecasterConfig) -> None:
        super().__init__(config)
        self.maps = _MODULES[config.kind](
            config.lookback,
            config.horizon * self.head.size,
            config.variates,
            config.individual,
            config.initialization,
        )
        if self.head.size > 1:
            self._quiet_the_rest()

    @torch.no_grad()
    def _quiet_the_rest(self) -> None:
        """Let numbers other than the centre start at 0: a standard spread."""
        centre = self.head.centre.repeat(self.config.horizon)
        for module in self.maps.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(centre.unsqueeze(1))
                module.bias.mul_(centre)

    def network(self, inputs: ForecastInputs, horizon: int) -> Tensor:
        """See :meth:`Forecaster.network`."""
        raw = self.maps(inputs.values).unflatten(1, (self.config.horizon, self.head.size))
        if self.config.kind == "nlinear" and self.head.size > 1:
            last = inputs.values[:, -1].detach()[:, None, None]
            raw = raw - last * (1 - self.head.centre.to(raw))[:, None]
        return raw.transpose(2, 3)[:, :horizon]


def _register(name: str, description: str, *aliases: str, **options: object) -> None:
    register_model(
        ModelEntry(
            name=name,
            domain="timeseries",
            config=partial(LinearForecasterConfig, **options),  # type: ignore[arg-type]
            architecture="LinearForecaster",
            aliases=aliases,
            description=description,
        )
    )


_register("ltsf_linear", "one linear map of the lookback", "linear", kind="linear")
_register("ltsf_nlinear", "one linear map of the lookback less its last value", "nlinear", kind="nlinear")
_register("ltsf_dlinear", "linear maps of trend and remainder", "dlinear", kind="dlinear")
_register(
    "ltsf_rlinear",
    "one linear map under RevIN",
    "rlinear",
    kind="linear",
    scaling="instance",
)
