"""A model that starts exactly at a linear forecast: the map beside it in closed form, or seasonal naive."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch

from ...core.errors import UserError
from ..baselines.ridge import PENALTIES, RidgeForecaster
from ..data.calendar import calendar_features
from ..data.ltsf_windows import LTSFDataModule
from ..data.series_windows import SeriesDataModule
from ..ltsf import LTSFData

#: Without a bias, and over long windows, stronger penalties than the baseline's are worth trying.
_PENALTIES = (*PENALTIES, 3e-2, 0.3, 1.0)


#: True is ``ridge``.
LinearStart = bool | Literal["ridge", "seasonal"]


def start_linear(model: Any, data: LTSFDataModule | SeriesDataModule, kind: LinearStart = True) -> None:
    """Set ``model.skip``, a linear map of the window less its last value, to a forecast that needs no training, and the
    map of the features to zeros: the model then forecasts exactly that, to rounding, and training adds to it.

    ``ridge`` is the ridge regression of the training windows, its penalty chosen on validation windows; ``seasonal``
    repeats the last season, which series of all shapes have in common.

    The regression is `RidgeForecaster` of kind ``nlinear`` without bias, as models scale each window and a bias would
    be in units of the data. A model with a cycle gets the mean of the training rows at each position, and the
    regression is of what that leaves.

    Raises:
        UserError: the model has no such map, no training window is complete, or a season is longer than the lookback.
    """
    skip = getattr(model, "skip", None)
    if not isinstance(skip, torch.nn.Linear):
        raise UserError(
            f"linear_start: {type(model).__name__} has no linear map beside it; set its option linear_skip, or leave "
            "linear_start out"
        )
    if kind == "seasonal":
        weight = _seasonal_map(skip.in_features, skip.out_features, data)
    else:
        weight = _ridge_map(skip.in_features, skip.out_features, model, data)
    with torch.no_grad():
        skip.weight.copy_(weight)
        skip.bias.zero_()
        model.output.weight.zero_()
        model.output.bias.zero_()


def _seasonal_map(lookback: int, horizon: int, data: LTSFDataModule | SeriesDataModule) -> torch.Tensor:
    """Return the map (horizon, lookback) to the value a season ago."""
    table = data.data
    season = table.frequency.season_length if isinstance(table, LTSFData) else table.season
    if season > lookback:
        raise UserError(f"linear_start: a season has {season} steps, the lookback {lookback}; lengthen data.lookback")
    weight = torch.zeros(horizon, lookback)
    steps = torch.arange(horizon)
    weight[steps, lookback - season + steps % season] = 1.0
    return weight


def _ridge_map(lookback: int, horizon: int, model: Any, data: LTSFDataModule | SeriesDataModule) -> torch.Tensor:
    """Return the regression's map (horizon, lookback), float64."""
    ridge = RidgeForecaster(lookback, horizon, "nlinear", _PENALTIES, bias=False)
    if isinstance(data, LTSFDataModule):
        ridge.fit_ltsf(_less_cycle(model, data))
    else:
        held = (data.val_windows + data.test_windows) * data.horizon
        ridge.fit_series(
            column for series in data.data for column in series.values[: max(0, len(series) - held)].T if len(column)
        )
    return torch.from_numpy(ridge.weight[:-1].T)


def _less_cycle(model: Any, data: LTSFDataModule) -> LTSFData:
    """Fit the model's cycle, where it has one, and return the table without it."""
    cycle, table = getattr(model, "cycle", None), data.data
    if cycle is None:
        return table
    features = calendar_features(table.stamps, table.frequency, data.calendar)
    column = torch.from_numpy(features[:, model.config.cycle_column])
    until = table.borders.train
    cycle.fit(torch.from_numpy(table.scaled[:until]), column[:until])
    levels = cycle(column).detach().double().numpy()
    return dataclasses.replace(table, values=table.values - levels * table.std)
