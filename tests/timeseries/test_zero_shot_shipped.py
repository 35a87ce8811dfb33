"""The zero-shot forecaster that ships: loads offline, forecasts what it has never seen better than naive ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_runs import Command

import longscan
from longscan.core.registry import find_model
from longscan.timeseries.baselines.forecasters import make_baseline
from longscan.timeseries.data import read_series
from longscan.timeseries.datasets import dataset_path
from longscan.timeseries.estimator import TimeSeriesForecaster
from longscan.timeseries.evaluation import evaluate_gift
from longscan.timeseries.naming import find_forecaster


@pytest.fixture(scope="module")
def model() -> Any:
    return longscan.from_pretrained("zero_shot")


def test_it_ships(model: Any) -> None:
    entry = find_model("zero_shot")
    assert entry is not None
    assert entry.pretrained
    assert entry.folder is not None
    assert sum(file.stat().st_size for file in Path(entry.folder).iterdir()) < 12e6
    assert sum(parameter.numel() for parameter in model.parameters()) == 521_568
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_better_than_naive_on_what_it_has_never_seen() -> None:
    """Electricity transformers by the hour: two days ahead, two windows at the end of each of seven channels."""
    data = read_series(dataset_path("ETTh1"))
    data = data.replace([series.rows(len(series) - 1500, len(series)) for series in data])
    forecaster = find_forecaster("zero-shot", lookback=336, horizon=48, device="cpu")
    ours = evaluate_gift(data, forecaster, 48, windows=2)
    naive = evaluate_gift(data, make_baseline("seasonal-naive", lookback=336, horizon=48), 48, windows=2)
    assert ours.wql < 0.95 * naive.wql
    assert 0.6 < ours.coverage_80 < 0.97


def test_forecasts_do_not_depend_on_the_batch(model: Any) -> None:
    past = torch.randn(5, 300, 1, dtype=torch.float64).cumsum(1) + 50
    past[2, 100:150] = torch.nan
    past[3, :200] = torch.nan
    whole = model.predict(past, horizon=30, levels=(0.1, 0.5, 0.9))
    assert (whole.quantiles.diff(dim=0) >= 0).all()
    for row in range(5):
        one = model.predict(past[row : row + 1], horizon=30, levels=(0.1, 0.5, 0.9))
        spread = (whole.quantiles[-1, row] - whole.quantiles[0, row]).mean()
        assert ((one.quantiles[:, 0] - whole.quantiles[:, row]).abs() / spread).max() < 1e-4


def test_it_follows_a_season_and_a_level(model: Any) -> None:
    """A clean season goes on with narrow intervals, in other units too; a walk starts where it ended."""
    time = torch.arange(448.0)
    series = (torch.sin(2 * np.pi * time / 24) + 0.3 * torch.sin(2 * np.pi * time / 12))[None, :, None]
    for scale, shift in ((1.0, 0.0), (-500.0, 3e4)):
        forecast = model.predict(series[:, :400] * scale + shift, horizon=48, levels=(0.1, 0.9))
        error = (forecast.point - series[:, 400:] * scale - shift).abs().mean() / abs(scale)
        assert error < 0.15
        assert (forecast.quantiles[1] - forecast.quantiles[0]).mean() / abs(scale) < 0.8
    walk = torch.randn(16, 300, 1).cumsum(1)
    forecast = model.predict(walk, horizon=12, levels=(0.1, 0.9))
    assert ((forecast.point[:, 0] - walk[:, -1]).abs() < 2.5).float().mean() > 0.8
    width = (forecast.quantiles[1] - forecast.quantiles[0]).mean((0, 2))
    assert width[-1] > 1.5 * width[0]


def test_forecast_command(command: Command, tmp_path: Path) -> None:
    """By its name, on weeks with a hole, as far as asked for."""
    stamps = pd.date_range("2020-01-05", periods=120, freq="W")
    values = 200 + 30 * np.sin(2 * np.pi * np.arange(120) / 52)
    table = pd.DataFrame({"unique_id": "a", "ds": stamps, "y": values})
    table.loc[50:52, "y"] = np.nan
    table.to_csv(tmp_path / "weeks.csv", index=False)
    line = "timeseries forecast --data weeks.csv --model zero-shot --horizon 30 --pictures 1 --output out --device cpu"
    found = command(line)
    assert found.status == 0, found.err
    forecast = pd.read_csv(tmp_path / "out/forecast.csv")
    assert list(forecast.columns[2:]) == [f"zero_shot{part}" for part in ("", "-lo-80", "-hi-80", "-lo-95", "-hi-95")]
    assert len(forecast) == 30
    assert (tmp_path / "out/a.png").is_file()
    truth = 200 + 30 * np.sin(2 * np.pi * np.arange(120, 150) / 52)
    assert np.abs(forecast["zero_shot"] - truth).mean() < 20


def test_estimator() -> None:
    days = pd.date_range("2024-01-01", periods=90, freq="D")
    table = pd.DataFrame({"unique_id": "a", "ds": days, "y": 10 + np.arange(90) % 7})
    forecaster = TimeSeriesForecaster("zero_shot", horizon=14, lookback=90).fit(table)
    found = forecaster.predict(level=[80])
    assert len(found) == 14
    assert np.abs(found["zero_shot"] - (10 + np.arange(90, 104) % 7)).mean() < 1.0
