"""Whole evaluations: GIFT-Eval's windows on ETTh1, and M4's and GIFT-Eval's scores of one task."""

from __future__ import annotations

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.timeseries.baselines.forecasters import LinearRidge, SeasonalNaive
from longscan.timeseries.data import SeriesSet, make_series, read_series
from longscan.timeseries.datasets import dataset_path
from longscan.timeseries.evaluation import evaluate_gift, evaluate_m4
from longscan.timeseries.forecasts import Forecast
from longscan.timeseries.frequency import Frequency


@pytest.fixture(scope="module")
def etth1() -> SeriesSet:
    return read_series(dataset_path("ETTh1"))


@pytest.mark.parametrize(
    "horizon, mase, wql, coverage, windows",
    [(48, 1.001, 0.254, 0.897, 140), (480, 1.536, 0.453, 0.946, 28), (720, 1.438, 0.489, 0.979, 21)],
)
def test_seasonal_naive_on_etth1(
    etth1: SeriesSet, horizon: int, mase: float, wql: float, coverage: float, windows: int
) -> None:
    score = evaluate_gift(etth1, SeasonalNaive(), horizon)
    assert (score.mase, score.wql, score.coverage_80) == pytest.approx((mase, wql, coverage), abs=5e-4)
    assert score.windows == windows
    assert f"over {windows} windows" in str(score)


def sine(count: int, first: int = 0, number: int = 0) -> np.ndarray:
    return (
        10 + number + np.sin((np.arange(count) + first) * np.pi / 2 + number) + 0.01 * np.arange(first, first + count)
    )


def test_both_scores_of_one_task() -> None:
    train, test = (
        SeriesSet(
            tuple(
                make_series(f"s{n}", np.arange(first + 1, first + count + 1), sine(count, first, n)) for n in range(5)
            ),
            Frequency(1),
            season_length=4,
        )
        for count, first in ((100, 0), (8, 100))
    )
    points, pooled = evaluate_m4(train, test, SeasonalNaive())
    # Each step is one or two seasons of 0.04 behind; a season's difference is 0.04.
    assert points.mase == pytest.approx(1.5)
    assert pooled.mase == pytest.approx(1.5)
    assert (points.series, pooled.windows) == (5, 5)
    better, _ = evaluate_m4(train, test, LinearRidge(8, 8))
    assert better.mase < 0.5
    assert better.owa < points.owa


def test_quantiles_are_needed(etth1: SeriesSet) -> None:
    class Bare(SeasonalNaive):
        def predict(self, data, horizon, levels=(), future=None):  # type: ignore[no-untyped-def]
            forecasts = super().predict(data, horizon, (), future)
            return [Forecast(one.name, one.stamps, one.point) for one in forecasts]

    with pytest.raises(UserError, match="seasonal-naive gives no quantiles"):
        evaluate_gift(etth1, Bare(), 48, windows=1)
