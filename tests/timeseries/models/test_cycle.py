"""The learned cycle of each variate: positions, what it does to a forecast, what it needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from longscan import create_model
from longscan.core.errors import UserError
from longscan.timeseries.data.calendar import calendar_features
from longscan.timeseries.models.cycle import Cycle

LOOKBACK, HORIZON = 48, 30


def make(**options: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"lookback": LOOKBACK, "horizon": HORIZON, "variates": 2, "past_covariates": 2, "future_covariates": 1}
    return create_model("s4d_patch_forecaster", **{**sizes, "cycle": 24, **options}).eval()


@pytest.mark.parametrize("name, positions, step", [("hour", 24, "h"), ("day_of_week", 7, "D"), ("month", 12, "MS")])
def test_positions_of_calendar_features(name: str, positions: int, step: str) -> None:
    stamps = pd.date_range("2024-01-01", periods=40, freq=step)
    column = torch.from_numpy(calendar_features(stamps.to_numpy(), step, [name])[:, 0]).float()
    found = Cycle(positions).positions(column)
    expected = {"hour": stamps.hour, "day_of_week": stamps.day_of_week, "month": stamps.month - 1}[name]
    assert found.tolist() == list(expected)
    assert Cycle(positions).positions(torch.tensor([torch.nan, 9.0])).tolist() == [0, positions - 1]


def test_the_cycle_passes_through_the_forecast() -> None:
    """Adding a cycle to a series adds it to the forecast: past and future at the positions that covariates tell."""
    model = make()
    model.fit_scaling(torch.randn(500, 2) * torch.tensor([3.0, 50.0]))
    past = torch.randn(4, LOOKBACK, 2).double() + 100
    hours = np.arange(LOOKBACK + HORIZON) + np.arange(4)[:, None]
    column = torch.from_numpy(hours % 24 / 23 - 0.5).float().unsqueeze(2)
    other = torch.randn(4, LOOKBACK, 1)
    covariates = {
        "past_covariates": torch.cat([other, column[:, :LOOKBACK]], 2),
        "future_covariates": column[:, LOOKBACK:],
    }
    before = model.predict(past, **covariates).point
    with torch.no_grad():
        model.cycle.table.normal_()
    levels = model.cycle.table.detach()[torch.from_numpy(hours % 24)].double() * model.scaling.std
    after = model.predict(past + levels[:, :LOOKBACK], **covariates).point
    assert (after - before - levels[:, LOOKBACK:]).abs().max() < 1e-4
    assert levels.abs().max() > 10
    # And it learns.
    model.loss(past, past[:, :HORIZON], **covariates).backward()
    assert (model.cycle.table.grad.abs() > 0).all()


def test_what_a_cycle_needs() -> None:
    with pytest.raises(UserError, match=r"cycle=24 is read off column 0 of 0 covariates of the future; give calendar"):
        make(past_covariates=0, future_covariates=0)
    with pytest.raises(UserError, match=r"cycle=24 is read off column 1 of 1 covariates"):
        make(cycle_column=1)
    with pytest.raises(UserError, match=r"cycle=1 must be 0 \(none\) or at least 2 positions"):
        make(cycle=1)
    assert not make(decoder="last").streams
    assert make(decoder="last", cycle=0).streams
