"""Scores against numbers worked out by hand and against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.timeseries import metrics
from longscan.timeseries.baselines.naive2 import is_seasonal, naive2, seasonal_indices
from longscan.timeseries.metrics.gift import window_count

NAN = float("nan")
Y, F = np.array([1.0, 2.0, 4.0, 0.0]), np.array([2.0, 2.0, 2.0, 0.0])


def test_point_errors() -> None:
    assert metrics.mse(Y, F) == pytest.approx(5 / 4)
    assert metrics.rmse(Y, F) == pytest.approx(math.sqrt(5 / 4))
    assert metrics.mae(Y, F) == pytest.approx(3 / 4)
    assert metrics.wape(Y, F) == pytest.approx(3 / 7)
    assert metrics.smape(Y, F) == pytest.approx(200 * (1 / 3 + 0 + 2 / 6 + 0) / 4)  # 0/0 counts as 0
    assert metrics.mape(Y[:3], F[:3]) == pytest.approx((1 + 0 + 0.5) / 3)
    with pytest.raises(UserError, match="MAPE is not defined"):
        metrics.mape(Y, F)


def test_missing_targets_count_for_nothing_and_missing_forecasts_are_errors() -> None:
    assert metrics.mse(np.array([1.0, NAN, 4.0]), np.array([2.0, 9.0, 2.0])) == pytest.approx(5 / 2)
    with pytest.raises(UserError, match="a forecast is not finite"):
        metrics.mse(np.array([1.0, NAN]), np.array([1.0, NAN]))
    with pytest.raises(UserError, match="nothing to score"):
        metrics.mae(np.array([NAN]), np.array([1.0]))


def test_scaled_errors() -> None:
    history = np.array([1.0, 5.0, 2.0, 7.0, 4.0])
    assert metrics.seasonal_error(history, 2) == pytest.approx((1 + 2 + 2) / 3)
    assert metrics.seasonal_error(history, 1) == pytest.approx((4 + 3 + 5 + 3) / 4)
    assert metrics.seasonal_error(history, 5) == metrics.seasonal_error(history, 1)  # too short for a season
    assert metrics.seasonal_error(np.array([1.0, NAN, 2.0, 7.0, 4.0]), 2) == pytest.approx((1 + 2) / 2)
    assert metrics.mase(Y, F, history, 2) == pytest.approx(0.75 / (5 / 3))
    assert metrics.rmsse(Y, F, history, 2) == pytest.approx(math.sqrt((5 / 4) / (9 / 3)))
    assert math.isnan(metrics.mase(Y, F, np.ones(5), 1))


def test_pinball_and_wql() -> None:
    targets = np.array([10.0, 20.0])
    quantiles = np.array([[8.0, 21.0], [12.0, 25.0]])
    assert metrics.pinball(targets, quantiles, (0.1, 0.9)) == pytest.approx(np.array([[0.2, 0.9], [0.2, 0.5]]))
    wql = (2 * (0.2 + 0.9) / 30 + 2 * (0.2 + 0.5) / 30) / 2
    assert metrics.weighted_quantile_loss(targets, quantiles, (0.1, 0.9)) == pytest.approx(wql)
    missing = np.array([10.0, NAN])
    assert metrics.weighted_quantile_loss(missing, quantiles, (0.1, 0.9)) == pytest.approx((0.4 / 10 + 0.4 / 10) / 2)
    with pytest.raises(UserError, match="must lie between 0 and 1"):
        metrics.pinball(targets, quantiles, (0, 0.9))
    with pytest.raises(UserError, match="not finite"):
        metrics.pinball(targets, quantiles * NAN, (0.1, 0.9))


def test_crps_of_samples_is_the_double_sum() -> None:
    generator = np.random.default_rng(0)
    samples, targets = generator.normal(size=(40, 5)), generator.normal(size=5)
    pairs = np.abs(samples[:, None] - samples[None]).mean((0, 1))
    expected = (np.abs(samples - targets).mean(0) - 0.5 * pairs).mean()
    assert metrics.crps_from_samples(targets, samples) == pytest.approx(expected, rel=1e-12)
    assert metrics.crps_from_samples(np.array([3.0]), np.array([[1.0]])) == 2.0


def test_both_forms_of_the_crps_agree_with_the_normal_distribution() -> None:
    """CRPS of N(0, 1) at 0.5 is z (2Φ(z) - 1) + 2φ(z) - 1/√π."""
    from scipy.special import ndtri

    z = 0.5
    phi, density = 0.5 * (1 + math.erf(z / math.sqrt(2))), math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    exact = z * (2 * phi - 1) + 2 * density - 1 / math.sqrt(math.pi)
    levels = (np.arange(2000) + 0.5) / 2000
    quantiles = ndtri(levels)[:, None]
    assert metrics.crps_from_quantiles(np.array([z]), quantiles, levels.tolist()) == pytest.approx(exact, abs=2e-4)
    assert metrics.crps_from_samples(np.array([z]), quantiles) == pytest.approx(exact, abs=2e-4)


def test_coverage_and_interval_score() -> None:
    targets, lower, upper = np.array([1.0, 5.0, NAN, 9.0]), np.full(4, 2.0), np.full(4, 9.0)
    assert metrics.coverage(targets, lower, upper) == pytest.approx(2 / 3)
    score = metrics.interval_score(np.array([1.0, 5.0, 10.0]), np.full(3, 2.0), np.full(3, 9.0), 0.05)
    assert score == pytest.approx([7 + 40, 7, 7 + 40])
    with pytest.raises(UserError, match="quantiles cross"):
        metrics.coverage(targets, upper, lower)
    with pytest.raises(UserError, match=r"an interval of 0.95 needs the quantile 0.025"):
        metrics.interval_of(np.zeros((9, 2)), metrics.DECILES, 0.95)


# M4


def seasonal(count: int = 30, season: int = 4) -> tuple[np.ndarray, np.ndarray]:
    factors = np.array([0.5, 1.5, 0.8, 1.2])
    return 100 * factors[np.arange(count) % season], factors


@pytest.mark.parametrize("season, factors", [(4, [0.5, 1.5, 0.8, 1.2]), (3, [0.6, 1.5, 0.9])])
def test_decomposition_finds_the_factors(season: int, factors: list[float]) -> None:
    """Even and odd seasons, and a series that does not end with one."""
    values = 100 * np.array(factors)[np.arange(31) % season]
    assert seasonal_indices(values, season) == pytest.approx(factors)
    assert is_seasonal(values, season)
    expected = 100 * np.array(factors)[(31 + np.arange(7)) % season]
    assert naive2(values, 7, season) == pytest.approx(expected)


def test_naive2_without_a_season_repeats_the_last_value() -> None:
    values = np.random.default_rng(3).normal(size=60) + 10
    assert not is_seasonal(values, 12)
    assert naive2(values, 3, 12).tolist() == [values[-1]] * 3
    short = seasonal()[0][:11]  # fewer than three seasons
    assert naive2(short, 2, 4).tolist() == [short[-1]] * 2
    assert naive2(np.ones(30), 2, 4).tolist() == [1, 1]


def test_the_seasonality_test_sums_the_lags_before_the_season() -> None:
    values = np.sin(np.arange(40) * 2 * np.pi / 8) + np.random.default_rng(1).normal(size=40) * 2.0
    centred = values - values.mean()
    r = [(centred[k:] * centred[:-k]).sum() / (centred**2).sum() for k in range(1, 9)]
    limit = 1.645 * math.sqrt((1 + 2 * sum(x * x for x in r[:7])) / 40)
    assert is_seasonal(values, 8) == (abs(r[7]) > limit)


def test_m4_score_averages_before_it_divides() -> None:
    histories = [np.array([1.0, 2.0, 4.0]), np.array([10.0, 12.0, 11.0])]
    targets = [np.array([5.0]), np.array([12.0])]
    forecasts = [np.array([4.5]), np.array([12.5])]
    score = metrics.m4_score(histories, targets, forecasts, 1)
    smape = [200 * 0.5 / 9.5, 200 * 0.5 / 24.5]
    base_smape = [200 * 1 / 9, 200 * 1 / 23]
    mase, base_mase = [0.5 / 1.5, 0.5 / 1.5], [1 / 1.5, 1 / 1.5]
    assert score.smape == pytest.approx(sum(smape) / 2)
    assert score.mase == pytest.approx(sum(mase) / 2)
    assert score.owa == pytest.approx(0.5 * (sum(smape) / sum(base_smape) + sum(mase) / sum(base_mase)))
    assert score.series == 2
    assert metrics.m4_score(histories, targets, [naive2(h, 1, 1) for h in histories], 1).owa == pytest.approx(1)
    with pytest.raises(UserError, match="series 2 of the set is constant"):
        metrics.m4_score([histories[0], np.ones(3)], targets, forecasts, 1)


# GIFT-Eval


def test_gift_score_pools_windows() -> None:
    histories = [np.array([1.0, 2.0, 4.0]), np.array([10.0, 12.0, 11.0])]
    targets = [np.array([5.0, 6.0]), np.array([12.0, NAN])]
    levels = (0.1, 0.5, 0.9)
    quantiles = [np.array([[4.0, 4.0], [5.5, 5.5], [7.0, 7.0]]), np.array([[9.0, 9.0], [10.0, 10.0], [11.0, 11.0]])]
    score = metrics.gift_score(histories, targets, quantiles, 1, levels)
    assert score.mase == pytest.approx((0.5 / 1.5 + 0.5 / 1.5 + 2 / 1.5) / 3)
    assert score.mae == pytest.approx(3 / 3)
    assert score.coverage_80 == pytest.approx(2 / 3)
    low = 2 * (0.1 * 1 + 0.1 * 2 + 0.1 * 3) / 23
    middle = 2 * (0.5 * 0.5 + 0.5 * 0.5 + 0.5 * 2) / 23
    high = 2 * (0.1 * 2 + 0.1 * 1 + 0.9 * 1) / 23
    assert score.wql == pytest.approx((low + middle + high) / 3)
    constant = metrics.gift_score([histories[0], np.ones(3)], targets, quantiles, 1, levels)
    assert (constant.undefined, constant.mase) == (1, pytest.approx(0.5 / 1.5))


def test_gift_windows_and_relative_score() -> None:
    assert window_count(17420, 48) == 20
    assert window_count(17420, 480) == 4
    assert window_count(17420, 720) == 3
    assert window_count(100, 48) == 1
    assert metrics.relative_score([0.5, 2.0], [1.0, 1.0]) == pytest.approx(1.0)
