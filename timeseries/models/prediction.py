"""What a forecaster gives: a distribution of each step and variate, and forecasts read off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...core.errors import UserError
from .heads import ForecastHead
from .scaling import Scale, known_mask


class BatchForecast(NamedTuple):
    """Forecasts in units of the data, float64 and finite."""

    point: Tensor
    """(batch, horizon, variates): the mean, or the median of a quantile head."""
    levels: tuple[float, ...]
    """Of the quantiles, as asked for."""
    quantiles: Tensor | None
    """(levels, batch, horizon, variates), never crossing; None without levels."""
    samples: Tensor | None
    """(samples, batch, horizon, variates); None where none were asked for."""


@dataclass(frozen=True)
class Prediction:
    """The distribution of the future: parameters in scaled units, and what scales them.

    Attributes:
        head: what the parameters mean.
        parameters: by name, each (batch, horizon, variates) or (batch, horizon, variates, size).
        scale: of each window.
        unit: deviation of the training rows, (variates or 1,); the unit of the loss.
    """

    head: ForecastHead
    parameters: dict[str, Tensor]
    scale: Scale
    unit: Tensor

    def loss(self, target: Tensor, observed: Tensor | None = None, units: Literal["data", "window"] = "data") -> Tensor:
        """Return the mean loss over the observed targets; 0 where there is none.

        Args:
            target: (batch, horizon, variates) in units of the data; NaN counts as missing.
            observed: bool of that shape, False where missing.
            units: see ``ForecasterConfig.loss_units``.
        """
        known = known_mask(target, observed)
        # What is missing is given a value near the forecast, so that its loss is finite before it is left out.
        filler = self.scale.location.detach().abs().to(target.dtype)
        each = self.losses(torch.where(known, target, filler), units)
        return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)

    def losses(self, target: Tensor, units: Literal["data", "window"] = "data") -> Tensor:
        """Return the loss of each target, (batch, horizon, variates)."""
        return self.head.loss(self.parameters, target, self.scale, self.unit if units == "data" else None)

    def point(self) -> Tensor:
        """Return (batch, horizon, variates) in units of the data, float64."""
        return self.head.to_data(self.head.point(self.parameters), self.scale)

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """Return (levels, batch, horizon, variates) in units of the data, float64.

        Raises:
            UserError: a level outside (0, 1), or a point head.
        """
        for level in levels:
            if not 0 < level < 1:
                raise UserError(f"quantile level {level:g} must lie between 0 and 1")
        chosen = torch.tensor(list(levels), dtype=torch.float64, device=self.scale.location.device)
        values = self.head.to_data(self.head.quantiles(self.parameters, chosen, self.scale), self.scale)
        # Neighbours that rounding exchanged; by construction there are no others.
        order = chosen.argsort()
        values[order] = values[order].cummax(0).values
        return values

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return (count, batch, horizon, variates) in units of the data, float64; steps are drawn independently.

        Raises:
            UserError: a point head.
        """
        drawn = self.head.sample(self.parameters, count, generator, self.scale)
        return self.head.to_data(drawn, self.scale)

    def forecast(
        self, levels: Sequence[float] = (), samples: int = 0, generator: torch.Generator | None = None
    ) -> BatchForecast:
        """Read point, quantiles and samples off the distribution."""
        return BatchForecast(
            self.point(),
            tuple(levels),
            self.quantiles(levels) if len(levels) else None,
            self.sample(samples, generator) if samples else None,
        )
