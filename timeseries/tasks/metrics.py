"""Scores of forecasts over a whole evaluation set and all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from ...core.errors import UserError
from ..metrics.probabilistic import DECILES


class ForecastMetrics(Metric):
    """Sums over windows, steps and channels, so that batches of unequal size weigh right.

    Computes ``loss`` (the head's), ``mse`` and ``mae`` (in units of the training rows' deviation where ``unit`` is
    given, else of the data), ``nd`` (Σ|error| / Σ|target|), of models with quantiles ``wql`` and ``coverage_80``, and
    ``windows``, their number. Sums are float64.

    Args:
        name: of the set.
        horizon: steps.
        channels: of a target.
        quantiles: whether forecasts have deciles.
    """

    full_state_update = False
    squares: Tensor
    absolutes: Tensor
    relative: Tensor
    counts: Tensor
    sizes: Tensor
    magnitudes: Tensor
    losses: Tensor
    pinball: Tensor
    covered: Tensor
    windows: Tensor

    def __init__(self, name: str, horizon: int, channels: int, quantiles: bool) -> None:
        super().__init__()
        self.name, self.horizon, self.has_quantiles = name, horizon, quantiles
        for state in ("squares", "absolutes", "relative", "counts"):
            zeros = torch.zeros(horizon, channels, dtype=torch.float64)
            self.add_state(state, zeros, dist_reduce_fx="sum")
        self.add_state("pinball", torch.zeros(len(DECILES), dtype=torch.float64), dist_reduce_fx="sum")
        for state in ("sizes", "magnitudes", "losses", "covered", "windows"):
            self.add_state(state, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        loss: Tensor,
        point: Tensor,
        target: Tensor,
        known: Tensor,
        unit: Tensor,
        series_unit: Tensor,
        quantiles: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            loss: mean over the known targets.
            point: (batch, horizon, channels), in units of the data.
            target: of that shape.
            known: bool of that shape.
            unit: what errors of ``mse`` and ``mae`` are divided by; broadcasts.
            series_unit: what those of ``deviation`` are divided by; broadcasts.
            quantiles: deciles (9, batch, horizon, channels).
        """
        target, point = target.double(), point.double()
        error = torch.where(known, point - target, 0.0)
        self.squares += (error / unit).square().sum(0)
        self.absolutes += (error / unit).abs().sum(0)
        self.relative += (error / series_unit).square().sum(0)
        self.counts += known.sum(0)
        truth = torch.where(known, target, 0.0)
        self.sizes += truth.abs().sum()
        self.magnitudes += error.abs().sum()
        self.losses += loss.double() * known.sum()
        self.windows += len(target)
        if quantiles is None:
            return
        levels = torch.tensor(DECILES, dtype=torch.float64, device=target.device).view(-1, 1, 1, 1)
        difference = target - quantiles.double()
        scores = torch.maximum(levels * difference, (levels - 1) * difference)
        self.pinball += torch.where(known, scores, 0.0).sum((1, 2, 3))
        inside = (target >= quantiles[0]) & (target <= quantiles[-1])
        self.covered += (inside & known).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the scores by name.

        Raises:
            UserError: the set has no target.
        """
        total = self.counts.sum()
        if total == 0:
            raise UserError(f"the {self.name} set has no observed target; give one with targets")
        result = {"loss": self.losses / total, "mse": self.squares.sum() / total, "mae": self.absolutes.sum() / total}
        result["nd"] = self.magnitudes / self.sizes
        if self.has_quantiles:
            result["wql"] = (2 * self.pinball / self.sizes).mean()
            result["coverage_80"] = self.covered / total
        return {name: value.float() for name, value in result.items()} | {"windows": self.windows.float()}

    def deviation(self) -> tuple[tuple[float, ...], ...]:
        """Root mean squared error at each step of each channel in units of the series, of this process's windows."""
        return tuple(tuple(row) for row in (self.relative / self.counts.clamp(min=1)).sqrt().tolist())
