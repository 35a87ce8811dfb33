"""Rolling origins: where windows lie, what may be seen, when models are fitted; tables of forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.timeseries.backtest import RollingOrigin, cross_validation
from longscan.timeseries.baselines.forecasters import LinearRidge, Naive, SeasonalNaive
from longscan.timeseries.data import SeriesSet, make_series
from longscan.timeseries.forecasts import Forecast, forecast_table, interval_levels
from longscan.timeseries.frequency import Frequency


def hourly(lengths: Sequence[int], season: int = 4) -> SeriesSet:
    start = np.datetime64("2024-01-01T00", "us")
    series = []
    for number, rows in enumerate(lengths):
        stamps = start + np.arange(rows) * np.timedelta64(1, "h")
        series.append(make_series(f"s{number}", stamps, 100.0 * number + np.arange(rows)))
    return SeriesSet(tuple(series), Frequency("h"), season_length=season)


class Recorder(Naive):
    """Repeats the last value, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.fitted: list[list[int]] = []
        self.seen: list[list[int]] = []

    def fit(self, data: SeriesSet) -> Recorder:
        self.fitted.append([int(series.values[-1, 0]) for series in data])
        return self

    def predict(
        self,
        data: SeriesSet,
        horizon: int,
        levels: Sequence[float] = (),
        future: Mapping[str, np.ndarray] | None = None,
    ) -> list[Forecast]:
        self.seen.append([int(series.values[-1, 0]) for series in data])
        return super().predict(data, horizon, levels, future)


@pytest.mark.parametrize("step, cutoffs", [(None, [14, 17]), (1, [16, 17]), (2, [15, 17])])
def test_windows_end_with_the_series(step: int | None, cutoffs: list[int]) -> None:
    origins = RollingOrigin(3, windows=2, step=step)
    assert origins.cutoffs(20) == cutoffs
    windows = list(origins.split(hourly([20])))
    for cutoff, window in zip(cutoffs, windows, strict=True):
        assert window.history[0].values[:, 0].tolist() == list(range(cutoff))
        assert window.actual[0].values[:, 0].tolist() == [cutoff, cutoff + 1, cutoff + 2]


def test_only_the_past_is_seen() -> None:
    recorder = Recorder()
    table = cross_validation(hourly([20, 12]), [recorder], RollingOrigin(3, windows=2, refit=True))
    assert recorder.fitted == recorder.seen == [[13, 105], [16, 108]]
    assert table["recorder"].tolist() == [13] * 3 + [105] * 3 + [16] * 3 + [108] * 3
    assert table["y"].tolist() == [14, 15, 16, 106, 107, 108, 17, 18, 19, 109, 110, 111]
    assert table["cutoff"].iloc[0] == np.datetime64("2024-01-01T13")
    assert table["ds"].iloc[0] == np.datetime64("2024-01-01T14")
    assert table["step"].tolist() == [1, 2, 3] * 4
    assert table["window"].tolist() == [0] * 6 + [1] * 6


@pytest.mark.parametrize("refit, fits", [(False, [0]), (True, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3])])
def test_refitting(refit: bool | int, fits: list[int]) -> None:
    recorder = Recorder()
    cross_validation(hourly([20]), [recorder], RollingOrigin(2, windows=5, step=1, refit=refit))
    assert recorder.fitted == [[13 + number] for number in fits]
    assert len(recorder.seen) == 5


def test_sliding_context_and_embargo() -> None:
    window = next(RollingOrigin(2, context=5, embargo=3).split(hourly([20])))
    assert window.history[0].values[:, 0].tolist() == [13, 14, 15, 16, 17]
    assert window.fit_data[0].values[:, 0].tolist() == [10, 11, 12, 13, 14]


def test_a_span_is_covered_exactly() -> None:
    assert RollingOrigin.over(12, 4).windows == 3
    assert RollingOrigin.over(12, 4, 2).windows == 5
    with pytest.raises(UserError, match=r"test_rows=13 must be the horizon 4 and a multiple of the step 4"):
        RollingOrigin.over(13, 4)


def test_short_series() -> None:
    with pytest.raises(UserError, match=r"series 's1' has 4 rows, 2 windows of horizon 3 and step 3 needs 7"):
        cross_validation(hourly([20, 4]), [Naive()], RollingOrigin(3, windows=2))
    table = cross_validation(hourly([20, 4]), [Naive()], RollingOrigin(3, windows=2, short_series="drop"))
    assert set(table["unique_id"]) == {"s0"}


def test_baselines_side_by_side_with_intervals() -> None:
    data = hourly([80, 90], season=4)
    table = cross_validation(
        data, [Naive(), SeasonalNaive(), LinearRidge(8, 4)], RollingOrigin(4, windows=2), level=[80, 95]
    )
    # A straight line: NLinear is exact, the seasonal naive is a season behind.
    assert table["ridge-nlinear"].to_numpy() == pytest.approx(table["y"].to_numpy(), abs=0.05)
    assert (table["y"] - table["seasonal-naive"]).to_numpy() == pytest.approx(np.full(16, 4.0))
    assert (table["seasonal-naive-hi-80"] - table["seasonal-naive"]).iloc[0] == pytest.approx(4 * 1.2815516, rel=1e-6)
    assert (table["seasonal-naive"] - table["seasonal-naive-lo-95"]).iloc[0] == pytest.approx(4 * 1.959964, rel=1e-6)


def test_names_must_differ() -> None:
    with pytest.raises(UserError, match="names of their own"):
        cross_validation(hourly([20]), [Naive(), Naive()], RollingOrigin(2))


def test_tables_and_levels() -> None:
    assert interval_levels([80, 95]) == (0.025, 0.1, 0.5, 0.9, 0.975)
    with pytest.raises(UserError, match="between 0 and 100"):
        interval_levels([100])
    forecasts = Naive().predict(hourly([5]), 2, (0.1, 0.9))
    table = forecast_table(forecasts, "m", level=[80], quantiles=[0.9])
    assert table.columns.tolist() == ["unique_id", "ds", "m", "m-q0.9", "m-lo-80", "m-hi-80"]
    assert table["m-q0.9"].tolist() == table["m-hi-80"].tolist()
    with pytest.raises(UserError, match=r"m has no quantile 0.025"):
        forecast_table(forecasts, "m", level=[95])


@pytest.mark.parametrize("point, quantiles", [(np.nan, [1.0, 2.0]), (1.0, [2.0, 1.0])])
def test_forecasts_are_finite_and_quantiles_never_cross(point: float, quantiles: Any) -> None:
    with pytest.raises(UserError, match=r"series 'a'.*(not finite|cross)"):
        Forecast("a", np.arange(1), np.full((1, 1), point), (0.1, 0.9), np.array(quantiles).reshape(2, 1, 1))
