"""A linear map inside a model, started at the closed-form solution."""

from __future__ import annotations

from typing import Any

import torch

from ...core.errors import UserError
from ..baselines.ridge import RidgeForecaster
from ..data.ltsf_windows import LTSFDataModule


def start_linear(model: Any, data: Any) -> None:
    """Set ``model.skip``, a linear map of the window less its last value, to the ridge regression of the training
    windows, its penalty chosen on validation windows.

    The map is that of `RidgeForecaster` of kind ``nlinear``. Its bias, which is in units of the data, is left out:
    the model scales each window.

    Raises:
        UserError: the model has no such map, or no training window is complete.
    """
    skip = getattr(model, "skip", None)
    if not isinstance(skip, torch.nn.Linear):
        raise UserError(
            f"linear_start: {type(model).__name__} has no linear map beside it; set its option linear_skip, or leave "
            "linear_start out"
        )
    ridge = RidgeForecaster(skip.in_features, skip.out_features, "nlinear")
    if isinstance(data, LTSFDataModule):
        ridge.fit_ltsf(data.data)
    else:
        held = (data.val_windows + data.test_windows) * data.horizon
        ridge.fit_series(
            column for series in data.data for column in series.values[: max(0, len(series) - held)].T if len(column)
        )
    with torch.no_grad():
        skip.weight.copy_(torch.from_numpy(ridge.weight[:-1].T))
        skip.bias.zero_()
