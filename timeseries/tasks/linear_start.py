"""A model that starts exactly at the closed-form linear map beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ...core.errors import UserError
from ..baselines.ridge import PENALTIES, RidgeForecaster
from ..data.calendar import calendar_features
from ..data.ltsf_windows import LTSFDataModule
from ..data.series_windows import SeriesDataModule
from ..ltsf import LTSFData

#: Without a bias, and over long windows, stronger penalties than the baseline's are worth trying.
_PENALTIES = (*PENALTIES, 3e-2, 0.3, 1.0)


def start_linear(model: Any, data: LTSFDataModule | SeriesDataModule) -> None:
    """Set ``model.skip``, a linear map of the window less its last value, to the ridge regression of the training
    windows, its penalty chosen on validation windows, and the map of the features to zeros: the model then forecasts as
    the regression does, to rounding, and training adds to it.

    The regression is `RidgeForecaster` of kind ``nlinear`` without bias, as models scale each window and a bias would
    be in units of the data. A model with a cycle gets the mean of the training rows at each position, and the
    regression is of what that leaves.

    Raises:
        UserError: the model has no such map, or no training window is complete.
    """
    skip = getattr(model, "skip", None)
    if not isinstance(skip, torch.nn.Linear):
        raise UserError(
            f"linear_start: {type(model).__name__} has no linear map beside it; set its option linear_skip, or leave "
            "linear_start out"
        )
    ridge = RidgeForecaster(skip.in_features, skip.out_features, "nlinear", _PENALTIES, bias=False)
    if isinstance(data, LTSFDataModule):
        ridge.fit_ltsf(_less_cycle(model, data))
    else:
        held = (data.val_windows + data.test_windows) * data.horizon
        ridge.fit_series(
            column for series in data.data for column in series.values[: max(0, len(series) - held)].T if len(column)
        )
    with torch.no_grad():
        skip.weight.copy_(torch.from_numpy(ridge.weight[:-1].T))
        skip.bias.zero_()
        model.output.weight.zero_()
        model.output.bias.zero_()


def _less_cycle(model: Any, data: LTSFDataModule) -> LTSFData:
    """Fit the model's cycle, where it has one, and return the table without it."""
    cycle, table = getattr(model, "cycle", None), data.data
    if cycle is None:
        return table
    features = calendar_features(table.stamps, table.frequency)
    column = torch.from_numpy(features[:, model.config.cycle_column])
    until = table.borders.train
    cycle.fit(torch.from_numpy(table.scaled[:until]), column[:until])
    levels = cycle(column).detach().double().numpy()
    return dataclasses.replace(table, values=table.values - levels * table.std)
