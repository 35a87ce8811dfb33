"""Training of forecasters on synthetic series alone, for series that they will never have seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from .card import TimeSeriesCard
from .tasks.forecasting import Forecasting
from .zero_shot_data import SyntheticDataModule


class ZeroShotForecasting(Forecasting):
    """Forecast what follows windows of a `SyntheticDataModule`.

    As `Forecasting`, but the model keeps no scale and no frequency: its card fits any table. Series weigh alike
    whatever their units (``options: {loss_units: window}``, the models' default), so ``val/loss`` is the measure; the
    other metrics are in units that differ between series. Weights are chosen on synthetic windows.

    Args: those of `Forecasting`.
    """

    def describe(self, data: Any, *, complete: bool = True) -> TimeSeriesCard:
        """Return the card of a data module.

        Raises:
            UserError: a data module of another kind.
        """
        if not isinstance(data, SyntheticDataModule):
            raise UserError(
                f"data.class_path: ZeroShotForecasting needs a SyntheticDataModule, not {type(data).__name__}; "
                "to train on data of your own use Forecasting"
            )
        return TimeSeriesCard(lookback=data.lookback, horizon=data.horizon, source="synthetic series")

    def prepare(self, model: Any) -> None:
        """Nothing is learned of any rows.

        Raises:
            UserError: a model that is no forecaster, or one of fixed windows.
        """
        if not hasattr(model, "fit_scaling"):
            raise UserError(f"{type(model).__name__} is no forecaster; choose another model (`longscan models`)")
        if not (model.any_horizon and model.any_lookback):
            raise UserError(
                f"{type(model).__name__} reads windows of one length, but these differ; use zero_shot_forecaster or a "
                "model with the decoder rollout"
            )

    def _series_unit(self, batch: Mapping[str, Any], unit: Tensor) -> Tensor:
        """Each history's own deviation."""
        past, observed = batch["input_ids"].double(), batch["observed"]
        count = observed.sum(1, keepdim=True).clamp(min=1)
        mean = torch.where(observed, past, 0.0).sum(1, keepdim=True) / count
        return (torch.where(observed, past - mean, 0.0).square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-6)
