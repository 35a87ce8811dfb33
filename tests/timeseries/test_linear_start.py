"""Models that start at a forecast without training: ridge regression, with a cycle or without, or seasonal naive."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.timeseries.baselines.ridge import RidgeForecaster
from longscan.timeseries.data import LTSFDataModule, SeriesDataModule
from longscan.timeseries.tasks.linear_start import start_linear

SMALL = {"lookback": 48, "horizon": 12, "d_model": 4, "n_layers": 1, "patch": 8, "linear_skip": True}


def protocol(tables: Path, **options: Any) -> LTSFDataModule:
    data = LTSFDataModule(str(tables / "wide.csv"), **{"lookback": 48, "horizon": 12, **options})
    data.setup("fit")
    return data


def started(data: LTSFDataModule, kind: Any = True, **options: Any) -> Any:
    torch.manual_seed(0)
    model: Any = longscan.create_model("s4d_patch_forecaster", variates=3, **SMALL | options)
    start_linear(model, data, kind)
    model.fit_scaling(torch.from_numpy(data.data.values[: data.data.borders.train]))
    return model.eval()


def forecast(model: Any, data: LTSFDataModule, rows: int = 20, **covariates: torch.Tensor) -> np.ndarray:
    """Forecasts of the first test windows, scaled."""
    inputs = data.data.windows("test", 48, 12)[0][:rows]
    past = torch.from_numpy(inputs * data.data.std + data.data.mean)
    return (model.predict(past, **covariates).point.numpy() - data.data.mean) / data.data.std


def test_the_start_is_the_regression_without_bias(tables: Path) -> None:
    """Nothing is set aside: neither the features of the untrained stack, nor a bias, disturb the forecast."""
    data = protocol(tables)
    ridge = RidgeForecaster(48, 12, bias=False, penalties=(0.0, 1e-4, 1e-3, 1e-2, 1e-1, 3e-2, 0.3, 1.0))
    ridge.fit_ltsf(data.data)
    assert not ridge.weight[-1].any()
    inputs = data.data.windows("test", 48, 12)[0]
    np.testing.assert_allclose(forecast(started(data), data), ridge(inputs[:20]), atol=2e-5)


def test_a_regression_without_bias_moves_with_the_level(tables: Path) -> None:
    data = protocol(tables).data
    inputs = data.windows("test", 48, 12)[0][:5]
    ridge = RidgeForecaster(48, 12, bias=False).fit_ltsf(data)
    np.testing.assert_allclose(ridge(3 * inputs + 7), 3 * ridge(inputs) + 7, atol=1e-9)
    # It is the least-squares solution of its kind: no other weights fit the training windows better.
    exact = RidgeForecaster(48, 12, bias=False, penalties=(0.0,)).fit_ltsf(data)
    x, y = data.windows("train", 48, 12)
    flat, target = x.transpose(0, 2, 1).reshape(-1, 48), y.transpose(0, 2, 1).reshape(-1, 12)
    best = np.linalg.lstsq(flat - flat[:, -1:], target - flat[:, -1:], rcond=None)[0]
    np.testing.assert_allclose(exact.weight[:-1], best, atol=1e-7)
    biased = RidgeForecaster(48, 12).fit_ltsf(data)
    assert np.abs(biased(inputs + 7) - 7 - biased(inputs)).max() < 1e-9  # a bias moves too, but not with the scale
    assert np.abs(biased(3 * inputs) - 3 * biased(inputs)).max() > 1e-6


def test_the_cycle_is_the_mean_of_each_hour_and_the_regression_of_what_is_left(tables: Path) -> None:
    data = protocol(tables, calendar=["hour"])
    model = started(data, cycle=24, past_covariates=1, future_covariates=1)
    table = data.data
    train, hours = table.scaled[: table.borders.train], np.arange(len(table.values)) % 24
    means = np.stack([train[hours[: len(train)] == hour].mean(0) for hour in range(24)]) - train.mean(0)
    np.testing.assert_allclose(model.cycle.table.detach().numpy(), means, atol=1e-6)
    rest = dataclasses.replace(table, values=table.values - means[hours] * table.std)
    penalties = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 3e-2, 0.3, 1.0)
    ridge = RidgeForecaster(48, 12, bias=False, penalties=penalties).fit_ltsf(rest)
    first = table.borders.val
    expected = ridge(rest.windows("test", 48, 12)[0][:20])
    expected += np.stack([means[hours[row : row + 12]] for row in range(first, first + 20)])
    samples = [data.test_set[index] for index in range(20)]
    covariates = {
        name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
        for name in ("past_covariates", "future_covariates")
    }
    np.testing.assert_allclose(forecast(model, data, **covariates), expected, atol=2e-5)


def test_seasonal_start(tables: Path) -> None:
    data = protocol(tables)
    inputs = data.data.windows("test", 48, 12)[0][:20]
    np.testing.assert_allclose(forecast(started(data, "seasonal"), data), inputs[:, 24:36], atol=1e-5)
    panel = SeriesDataModule(str(tables / "sales.csv"), lookback=30, horizon=40)
    model: Any = longscan.create_model("s4d_patch_forecaster", **SMALL | {"lookback": 30, "horizon": 40})
    start_linear(model, panel, "seasonal")
    assert model.skip.weight.sum(1).tolist() == [1] * 40
    assert model.skip.weight.argmax(1).tolist() == [6 + step % 24 for step in range(40)]
    with pytest.raises(UserError, match=r"a season has 24 steps, the lookback 20; lengthen data.lookback"):
        start_linear(longscan.create_model("s4d_patch_forecaster", **SMALL | {"lookback": 20}), panel, "seasonal")


def test_a_model_without_a_linear_map_is_refused(tables: Path) -> None:
    with pytest.raises(UserError, match="linear_start: LinearForecaster has no linear map beside it"):
        start_linear(longscan.create_model("ltsf_nlinear", lookback=48, horizon=12), protocol(tables))
