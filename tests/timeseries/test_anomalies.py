"""Anomaly scores: what stands out is found, and neither model nor threshold sees what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from longscan.core.errors import UserError
from longscan.timeseries.anomalies import score_anomalies
from longscan.timeseries.baselines.forecasters import LinearRidge, Naive2, SeasonalNaive
from longscan.timeseries.data import make_series
from longscan.timeseries.data.series import SeriesSet
from longscan.timeseries.frequency import Frequency


def values(rows: int = 1200) -> np.ndarray:
    time = np.arange(rows)
    return 100 + 10 * np.sin(2 * np.pi * time / 24) + np.random.default_rng(0).normal(size=rows)


def one(series: np.ndarray) -> SeriesSet:
    return SeriesSet((make_series("a", np.arange(len(series)), series),), Frequency(1), season_length=24)


def test_a_spike_is_found() -> None:
    series = values()
    series[900] += 15
    series[950] = np.nan
    found = score_anomalies(one(series), LinearRidge(48, 1), 1)
    assert len(found) == 600
    assert found["score"].idxmax() == 300
    assert found["anomaly"][300]
    assert np.isnan(found["score"][350])
    assert not found["anomaly"][350]
    # Ordinary values are called anomalies about as often as was asked for.
    assert found["anomaly"].mean() < 0.04
    # By definition: the distance to the median in standard deviations of the step.
    ridge = LinearRidge(48, 1).fit(one(series[:400]))
    forecast = ridge.predict(one(series[:700]), 1, (0.1, 0.5, 0.9))[0]
    assert forecast.quantiles is not None
    spread = (forecast.quantiles[2] - forecast.quantiles[0]).item() / 2.5631031310892
    assert found["score"][100] == pytest.approx(abs(series[700] - forecast.quantiles[1].item()) / spread)


def test_what_is_scored_takes_no_part() -> None:
    """Expectations and scores up to a row, and the threshold, do not depend on later rows."""
    series = values()
    first = score_anomalies(one(series), SeasonalNaive(), 8)
    changed = series.copy()
    changed[800:] *= 3
    second = score_anomalies(one(changed), SeasonalNaive(), 8)
    assert second["threshold"][0] == first["threshold"][0]
    pd.testing.assert_frame_equal(first[:200], second[:200])
    assert second["anomaly"][200:224].all()


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"series .a.: a rate of 0\.001 needs 3000 training rows, there are 600"):
        score_anomalies(one(values()), SeasonalNaive(), 1, rate=0.001)
    with pytest.raises(UserError, match="has 1200 rows, none after 1200 to score"):
        score_anomalies(one(values()), SeasonalNaive(), 1, train_rows=1200)
    with pytest.raises(UserError, match="naive2 gives no quantiles"):
        score_anomalies(one(values()), Naive2(), 24)


def test_the_command(command: Any, tmp_path: Path) -> None:
    series = values()
    series[1000] -= 30
    frame = pd.DataFrame({"unique_id": "a", "ds": pd.date_range("2024-01-01", periods=1200, freq="h"), "y": series})
    frame.to_csv("t.csv", index=False)
    outcome = command("timeseries detect --data t.csv --train-rows 800 --output found.csv")
    assert outcome.status == 0, outcome.err
    table = pd.read_csv("found.csv")
    assert len(table) == 400
    assert table["score"].idxmax() == 200
    assert "highest: " in outcome.out
    assert "a at 2024-02-11 16:00:00" in outcome.out


def test_a_series_without_a_season_is_read_far_enough_back(command: Any, tmp_path: Path) -> None:
    """Two days say nothing of how far values lie apart."""
    series = 100 + 10 * np.sin(2 * np.pi * np.arange(600) / 7) + np.random.default_rng(0).normal(size=600)
    series[500] += 12
    frame = pd.DataFrame({"unique_id": "a", "ds": pd.date_range("2024-01-01", periods=600), "y": series})
    frame.to_csv("t.csv", index=False)
    outcome = command("timeseries detect --data t.csv --output found.csv")
    assert outcome.status == 0, outcome.err
    table = pd.read_csv("found.csv")
    assert table["score"].idxmax() == 200
    assert np.abs(table["y"] - table["expected"]).median() < 1.5
    frame.assign(y=frame["y"].where(frame.index < 300)).to_csv("t.csv", index=False)
    outcome = command("timeseries detect --data t.csv --output found.csv")
    assert (outcome.status, outcome.out.count("highest")) == (0, 0)
