"""The zero-shot forecaster: periods found, clues, shapes, horizons, gaps, batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import longscan
from longscan.core.errors import UserError
from longscan.timeseries.models.period_search import find_periods, last_period, one_period_before
from longscan.timeseries.models.zero_shot import read_clues

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 2, "lookback": 96, "horizon": 24}


def make(**options: Any) -> Any:
    torch.manual_seed(0)
    return longscan.create_model("zero_shot_forecaster", **SMALL | options).eval()


def seasonal(count: int, length: int, period: float, noise: float = 0.1, slope: float = 0.0) -> Tensor:
    time = torch.arange(float(length))
    return torch.sin(2 * math.pi * time / period) + slope * time + noise * torch.randn(count, length)


def full(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


@pytest.mark.parametrize("period", [7, 12, 24, 52])
def test_periods_are_found(period: int) -> None:
    values = seasonal(16, 400, period, slope=0.02)
    found = find_periods(values, full(values))
    assert ((found.steps[:, 1] % period) == 0).all()  # smooth: a multiple of it where noise decides
    assert (found.strength[:, 1] > 0.8).all()
    sharp = torch.sign(torch.sin(2 * math.pi * (torch.arange(400.0) + 0.5) / period)) + 0.05 * torch.randn(16, 400)
    found = find_periods(sharp.cumsum(1) / 10 + sharp, full(sharp))
    assert (found.steps[:, 0] % period == 0).all()
    assert (found.steps[:, 2] == period).all()


def test_two_periods() -> None:
    """A day in a week, of hours: the longer one explains more, the shorter one is there too."""
    time = torch.arange(1008.0)
    weekend = ((time // 24) % 7 >= 5).float()
    values = torch.sign(torch.sin(2 * math.pi * (time + 0.5) / 24)) * (1 - 0.7 * weekend)
    values = values + 0.02 * torch.randn(4, 1008)
    steps = find_periods(values, full(values)).steps
    assert (steps[:, 0] == 168).all()
    assert (steps[:, 2] == 24).all()


def test_noise_and_flat_series_have_no_period() -> None:
    flat = torch.full((2, 50), 3.0)
    found = find_periods(flat, full(flat))
    assert (found.steps == 1).all()
    assert (found.strength == 0).all()
    noise = torch.randn(64, 400)
    assert find_periods(noise, full(noise)).strength.median() < 0.25
    short = torch.randn(2, 3)
    assert (find_periods(short, full(short)).steps == 1).all()


def test_padding_does_not_change_periods() -> None:
    values = seasonal(8, 200, 24, noise=0.3)
    alone = find_periods(values, full(values))
    padded = torch.cat([torch.zeros(8, 300), values], 1)
    observed = torch.cat([torch.zeros(8, 300, dtype=torch.bool), full(values)], 1)
    found = find_periods(padded, observed)
    assert torch.equal(found.steps, alone.steps)
    torch.testing.assert_close(found.strength, alone.strength, atol=1e-4, rtol=1e-3)


def test_lags() -> None:
    series = torch.arange(10.0).expand(2, -1)
    period = torch.tensor([3, 1])
    assert last_period(series, period, 5).tolist() == [[7, 8, 9, 7, 8], [9, 9, 9, 9, 9]]
    assert last_period(series, period, 2, back=2).tolist() == [[4, 5], [8, 8]]
    assert one_period_before(series, period)[0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_clues_know_a_series_that_repeats() -> None:
    values = seasonal(3, 240, 24, noise=0.0)
    clues = read_clues(values, full(values), full(values), 36)
    truth = torch.sin(2 * math.pi * torch.arange(240.0, 276.0) / 24)
    for index in (0, 1, 2):
        torch.testing.assert_close(clues.ahead[:, :, index], truth.expand(3, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(clues.anchors[:, :, 6], truth.expand(3, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(clues.anchors[:, :, 1], values[:, -1:].expand(-1, 36))
    assert (clues.summary[:, 6:9] < -2).all()  # a season ago there was no error
    assert (clues.summary[:, 9] > -1).all()  # a step ago there was


@pytest.mark.parametrize("horizon", [1, 12, 24, 100])
def test_any_horizon_and_lookback(horizon: int) -> None:
    model = make()
    for lookback in (5, 60, 200):
        past = 50 + 10 * seasonal(3, lookback, 12).unsqueeze(-1).repeat(1, 1, 2)
        forecast = model.predict(past, horizon=horizon, levels=(0.1, 0.5, 0.9))
        assert forecast.point.shape == (3, horizon, 2)
        assert forecast.quantiles.isfinite().all()
        assert (forecast.quantiles.diff(dim=0) >= 0).all()


def test_a_longer_horizon_begins_alike_without_weaving() -> None:
    """Later tokens may not change earlier ones, unless memories are woven."""
    past = seasonal(2, 96, 12).unsqueeze(-1)
    plain = make(weave=False)
    torch.testing.assert_close(
        plain.predict(past, horizon=60).point[:, :24], plain.predict(past, horizon=24).point, atol=1e-5, rtol=1e-5
    )
    woven = make()
    change = woven.predict(past, horizon=60).point[:, :24] - woven.predict(past, horizon=24).point
    assert change.abs().max() > 1e-6


def test_units_do_not_matter() -> None:
    model = make()
    past = seasonal(4, 96, 12).unsqueeze(-1).double()
    forecast, other = model.predict(past, levels=(0.1, 0.9)), model.predict(-3e4 + 250 * past, levels=(0.1, 0.9))
    torch.testing.assert_close(other.point, -3e4 + 250 * forecast.point, atol=0.05, rtol=1e-5)
    torch.testing.assert_close(other.quantiles, -3e4 + 250 * forecast.quantiles, atol=0.05, rtol=1e-5)


def test_batches_do_not_matter() -> None:
    model = make()
    past = torch.randn(6, 96, 1).cumsum(1)
    past[3, 10:40] = torch.nan
    whole = model.predict(past, levels=(0.1, 0.5, 0.9))
    for row in range(6):
        one = model.predict(past[row : row + 1], levels=(0.1, 0.5, 0.9))
        torch.testing.assert_close(one.quantiles[:, 0], whole.quantiles[:, row], atol=1e-5, rtol=1e-5)


def test_what_is_missing_is_not_read() -> None:
    """Values under the mask, and how long the padding is in whole patches, change nothing."""
    model = make()
    past = seasonal(2, 96, 12).unsqueeze(-1)
    observed = torch.ones_like(past, dtype=torch.bool)
    observed[:, 30:50] = False
    filled, holed = past.clone(), past.clone()
    filled[:, 30:50], holed[:, 30:50] = 1e6, torch.nan
    forecast = model.predict(filled, observed).point
    torch.testing.assert_close(forecast, model.predict(holed).point)
    nothing = model.predict(torch.full((1, 48, 1), torch.nan))
    assert nothing.point.isfinite().all()


def test_it_learns() -> None:
    """From standard intervals to the narrow ones of a season without noise."""
    model = make(horizon=12).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        series = seasonal(16, 108, 12, noise=0.02)
        loss = model.loss(series[:, :96, None], series[:, 96:, None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


def test_mistakes() -> None:
    with pytest.raises(UserError, match="weave needs the mixer gated_delta_product"):
        make(mixer="mamba")
    assert make(mixer="mamba", weave=False).predict(torch.randn(1, 96, 1)).point.shape == (1, 24, 1)
    with pytest.raises(UserError, match="leave covariates out"):
        make(past_covariates=1)
    with pytest.raises(UserError, match="patch=0"):
        make(patch=0)
