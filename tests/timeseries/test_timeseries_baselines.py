"""Baselines: exact on series they are made for, equal to direct solutions, finite with missing values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longscan.core.errors import UserError
from longscan.timeseries.baselines.forecasters import LinearRidge, Naive, SeasonalNaive, make_baseline
from longscan.timeseries.baselines.linear import DLinear, Linear, NLinear, fill_forward
from longscan.timeseries.baselines.naive import last_season, repeat_season, seasonal_naive_quantiles
from longscan.timeseries.baselines.ridge import Moments, RidgeForecaster, design
from longscan.timeseries.data import SeriesSet, make_series
from longscan.timeseries.frequency import Frequency

NAN = float("nan")


def test_last_season() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert last_season(values, 5, 3).tolist() == [5, 6, 7, 5, 6]
    assert last_season(values, 3, 1).tolist() == [7, 7, 7]
    assert last_season(values[:2], 3, 4).tolist() == [2, 2, 2]
    assert repeat_season(values[None, :, None], 5, 3)[0, :, 0].tolist() == [5, 6, 7, 5, 6]
    with pytest.raises(UserError, match="season=8 does not fit the lookback 7"):
        repeat_season(values[None, :, None], 5, 8)


def test_last_season_with_missing_values() -> None:
    assert last_season(np.array([1.0, 2.0, 3.0, 4.0, NAN, 6.0, NAN]), 4, 3).tolist() == [2, 6, 4, 2]
    assert last_season(np.array([NAN, NAN, NAN, 4.0]), 3, 3).tolist() == [4, 4, 4]
    with pytest.raises(UserError, match="without any observed value"):
        last_season(np.full(4, NAN), 2, 1)


def test_seasonal_naive_quantiles_widen_with_each_season() -> None:
    values = np.array([1.0, 2.0, 2.0, 4.0, 5.0, 6.0])
    sigma = np.sqrt((1 + 4 + 9 + 4) / 4)
    point, quantiles = seasonal_naive_quantiles(values, 5, 2, (0.1, 0.5, 0.9))
    assert point.tolist() == [5, 6, 5, 6, 5]
    assert quantiles[1] == pytest.approx(point)
    widths = (quantiles[2] - point) / (1.2815515655446004 * sigma)
    assert widths == pytest.approx(np.sqrt([1, 1, 2, 2, 3]))


@pytest.mark.parametrize("kind", ["linear", "nlinear", "rlinear"])
def test_ridge_solves_its_normal_equations(kind: str) -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(200, 6)).cumsum(1) + 5
    targets = generator.normal(size=(200, 3)) + inputs[:, -1:]
    moments = Moments.zeros(6, 3)
    for part in (slice(0, 70), slice(70, 200)):  # in any batches
        moments.add(inputs[part], targets[part], kind)  # type: ignore[arg-type]
    ridge = RidgeForecaster(6, 3, kind, penalties=(0.01,)).fit(moments)  # type: ignore[arg-type]
    regressors, level = design(inputs, kind)  # type: ignore[arg-type]
    penalty = 0.01 * 200 * np.diag([1.0] * 6 + [0.0])
    expected = np.linalg.solve(regressors.T @ regressors + penalty, regressors.T @ (targets - level))
    assert ridge.weight == pytest.approx(expected, abs=1e-9)
    residual = targets - level - regressors @ ridge.weight
    # Generalised cross-validation: few windows flatter a map that was fitted to them.
    freedom = np.trace(regressors @ np.linalg.solve(regressors.T @ regressors + penalty, regressors.T))
    assert ridge.deviation == pytest.approx(np.sqrt((residual**2).mean(0)) / (1 - freedom / 200))
    assert ridge(inputs[:, :, None])[:, :, 0] == pytest.approx(regressors @ ridge.weight + level)


def test_intervals_of_a_map_with_as_many_weights_as_windows() -> None:
    """What few held-out windows say counts where the map has learned its training windows by heart."""
    generator = np.random.default_rng(0)
    series = [generator.normal(size=60) + 5 * np.sin(np.arange(60) / 3) for _ in range(2)]
    ridge = RidgeForecaster(20, 10).fit_series(series)
    later = [generator.normal(size=60) + 5 * np.sin(np.arange(60) / 3) for _ in range(200)]
    errors = [one[20:30] - ridge(one[None, :20, None])[0, :, 0] for one in later]
    scale = np.mean([np.abs(np.diff(one)).mean() for one in series])
    assert 0.7 < ridge.deviation.mean() * scale / np.sqrt(np.mean(np.square(errors))) < 2
    exact = RidgeForecaster(4, 2).fit_series([np.arange(30.0)])
    assert exact.deviation == pytest.approx(0, abs=1e-6)


def test_ridge_without_penalty_is_least_squares_though_rank_deficient() -> None:
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(100, 5)), generator.normal(size=(100, 2))
    moments = Moments.zeros(5, 2)
    moments.add(inputs, targets, "nlinear")
    ridge = RidgeForecaster(5, 2, "nlinear", penalties=(0.0,)).fit(moments)
    regressors, level = design(inputs, "nlinear")  # the column of the last value is 0
    best = np.linalg.lstsq(regressors, targets - level, rcond=None)[0]
    assert ridge(inputs[:, :, None])[:, :, 0] == pytest.approx(regressors @ best + level, abs=1e-10)


def test_the_penalty_is_the_best_on_validation() -> None:
    generator = np.random.default_rng(1)
    train, validation = Moments.zeros(20, 1), Moments.zeros(20, 1)
    weights = generator.normal(size=20) * 0.1
    for moments, count in ((train, 30), (validation, 500)):
        inputs = generator.normal(size=(count, 20))
        moments.add(inputs, (inputs @ weights)[:, None] + generator.normal(size=(count, 1)), "linear")
    penalties = (0.0, 0.1, 1.0, 100.0)
    errors = [RidgeForecaster(20, 1, "linear", (p,)).fit(train, validation).validation_mse for p in penalties]
    chosen = RidgeForecaster(20, 1, "linear", penalties).fit(train, validation)
    assert chosen.penalty == penalties[int(np.argmin(errors))]
    assert chosen.validation_mse == pytest.approx(min(errors))


def test_windows_that_share_targets_with_the_held_out_one_are_not_trained_on() -> None:
    values = np.random.default_rng(2).normal(size=50).cumsum()
    changed = values.copy()
    changed[-3:] += 100.0  # the targets of the held-out window
    scale = np.abs(np.diff(values)).mean() / np.abs(np.diff(changed)).mean()
    one, other = (RidgeForecaster(5, 3, penalties=(0.0,)).fit_series([v]) for v in (values, changed))
    assert other.weight[:-1] == pytest.approx(one.weight[:-1], abs=1e-9)
    assert other.weight[-1] == pytest.approx(one.weight[-1] * scale, abs=1e-9)
    everything = RidgeForecaster(5, 3, penalties=(0.0,)).fit_series([changed], validation_windows=False)
    assert np.abs(everything.weight - other.weight).max() > 0.1


def one_series(values: np.ndarray) -> SeriesSet:
    stamps = np.datetime64("2024-01-01", "us") + np.arange(len(values)) * np.timedelta64(1, "h")
    return SeriesSet((make_series("a", stamps, values),), Frequency("h"))


def test_forecasts_are_equivariant_to_units() -> None:
    values = np.sin(np.arange(300) / 5) + 0.1 * np.random.default_rng(0).normal(size=300)
    for name in ("repeat-last", "seasonal-naive", "ridge-nlinear", "ridge-rlinear", "ridge-linear"):
        small, large = (
            make_baseline(name, lookback=24, horizon=6).fit(data).predict(data, 6, (0.1, 0.9))[0]
            for data in (one_series(values), one_series(values * 1e6))
        )
        assert large.point == pytest.approx(small.point * 1e6, rel=1e-6), name
        assert large.quantiles == pytest.approx(small.quantiles * 1e6, rel=1e-6), name
        if name != "ridge-linear":
            shifted = make_baseline(name, lookback=24, horizon=6).fit(one_series(values + 1000))
            moved = shifted.predict(one_series(values + 1000), 6)[0].point
            assert moved == pytest.approx(small.point + 1000, abs=1e-6), name


def test_missing_values_never_reach_a_forecast() -> None:
    values = np.sin(np.arange(300) / 5)
    values[[0, 1, 50, 120, 298, 299]] = NAN
    data = one_series(values)
    for forecaster in (Naive(), SeasonalNaive(24), LinearRidge(24, 6), LinearRidge(24, 6, "rlinear")):
        forecast = forecaster.fit(data).predict(data, 6, (0.1, 0.5, 0.9))[0]
        assert np.isfinite(forecast.point).all()
        assert forecast.quantiles is not None
        assert np.isfinite(forecast.quantiles).all()
    empty = one_series(np.full(10, NAN))
    with pytest.raises(UserError, match=r"series 'a' has no observed value"):
        Naive().predict(empty, 2)
    with pytest.raises(UserError, match=r"fitted for 6 steps, not 7"):
        LinearRidge(24, 6).fit(data).predict(data, 7)


def test_short_histories_are_lengthened() -> None:
    model = LinearRidge(24, 6).fit(one_series(np.arange(200.0)))
    short, long = (
        model.predict(one_series(values), 6)[0].point
        for values in (np.array([7.0, 8, 9]), np.array([7.0] * 22 + [8, 9]))
    )
    # Both see 22 values of 7, then 8 and 9; their scales differ, and with them only the bias.
    scales = np.array([1.0, 2 / 23])
    bias = model.ridge.weight[-1]
    assert (short - long)[:, 0] == pytest.approx(bias * (scales[0] - scales[1]), abs=1e-9)


# Modules


def test_linear_modules_begin_at_the_window_mean() -> None:
    inputs = torch.randn(2, 40, 3, dtype=torch.float64)
    mean = inputs.mean(1, keepdim=True).expand(2, 8, 3)
    for kind in (Linear, NLinear, DLinear):
        model = kind(40, 8).double()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.zeros_(parameter)
            else:
                assert torch.allclose(parameter, torch.full_like(parameter, 1 / 40))
        assert torch.allclose(model(inputs), mean, atol=1e-6)


def test_published_parameter_names_and_counts() -> None:
    assert list(DLinear(336, 96).state_dict()) == [
        "Linear_Seasonal.weight",
        "Linear_Seasonal.bias",
        "Linear_Trend.weight",
        "Linear_Trend.bias",
    ]
    assert sum(p.numel() for p in NLinear(336, 96).parameters()) == 32_352
    assert next(iter(Linear(8, 2, channels=2, individual=True).state_dict())) == "Linear.0.weight"


def test_modules_are_their_formulas() -> None:
    inputs = torch.randn(2, 30, 3)
    model = DLinear(30, 4, initialization="torch")
    series = inputs.transpose(1, 2).numpy()
    padded = np.pad(series, ((0, 0), (0, 0), (12, 12)), mode="edge")
    trend = np.stack([padded[..., i : i + 25].mean(-1) for i in range(30)], -1)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = (series - trend) @ state["Linear_Seasonal.weight"].T + state["Linear_Seasonal.bias"]
    expected = expected + trend @ state["Linear_Trend.weight"].T + state["Linear_Trend.bias"]
    assert model(inputs).detach().numpy() == pytest.approx(expected.transpose(0, 2, 1), abs=1e-5)
    shifted = NLinear(30, 4, initialization="torch")
    assert torch.allclose(shifted(inputs + 100), shifted(inputs) + 100, atol=1e-3)
    own = NLinear(30, 4, channels=3, individual=True, initialization="torch")
    one = own(inputs)[:, :, 1]
    assert torch.allclose(own(inputs[:, :, [1, 1, 1]])[:, :, 1], one, atol=1e-6)


def test_missing_inputs_are_filled() -> None:
    inputs = torch.tensor([[1.0, 0, 3, 0], [0, 0, 5, 6], [0, 0, 0, 0]])[..., None]
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]).bool()
    assert fill_forward(inputs, mask)[..., 0].tolist() == [[1, 1, 3, 3], [5, 5, 5, 6], [0, 0, 0, 0]]
    model = DLinear(4, 2)
    assert torch.equal(model(inputs, mask), model(fill_forward(inputs, mask)))


def test_module_errors() -> None:
    with pytest.raises(UserError, match="need the number of channels"):
        DLinear(8, 2, individual=True)
    with pytest.raises(UserError, match="initialization='zeros' is unknown"):
        Linear(8, 2, initialization="zeros")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected \\(batch, 8, channels\\)"):
        Linear(8, 2)(torch.zeros(1, 7, 2))
