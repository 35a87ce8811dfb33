"""Anomaly scores: how far each value lies from its forecast, in units of the forecast's own spread."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..core.errors import UserError
from .data.series import Series, SeriesSet
from .forecasts import Forecaster

#: Levels whose distance is 2.563 standard deviations of a normal distribution.
_LEVELS = (0.1, 0.5, 0.9)
_WIDTH = 2.5631031310892007


def score_anomalies(
    data: SeriesSet, forecaster: Forecaster, horizon: int, train_rows: int | None = None, rate: float = 0.01
) -> pd.DataFrame:
    """Return one row for each value after the training rows of each series.

    The first two thirds of the training rows are fitted on, the last third calibrates the threshold: the score that a
    share ``rate`` of its values exceeds, for each series. What is scored takes no part in either. Blocks of ``horizon``
    rows are forecast one after the other from all rows before them. A score is |value - median| · 2.563 / (decile 9 -
    decile 1), the distance in standard deviations where the forecast is normal.

    Columns: ``unique_id``, ``ds``, ``y``, ``expected``, ``score`` (NaN where the value is missing), ``threshold``,
    ``anomaly`` (bool).

    Args:
        data: series of one channel each.
        forecaster: gives quantiles.
        horizon: rows of a block; 1 forecasts each value from all before it.
        train_rows: of each series; half of it where None.
        rate: share of false alarms among ordinary values, in (0, 1).

    Raises:
        UserError: too few training rows for the threshold, nothing left to score, or a forecaster without quantiles.
    """
    if not 0 < rate < 1:
        raise UserError(f"rate {rate:g} must lie between 0 and 1")
    borders = [len(series) // 2 if train_rows is None else train_rows for series in data]
    for series, border in zip(data, borders, strict=True):
        if border >= len(series):
            raise UserError(
                f"{data.source}: series {series.name!r} has {len(series)} rows, none after {border} to score"
            )
        if border // 3 < 1 / rate:
            raise UserError(
                f"{data.source}: series {series.name!r}: a rate of {rate:g} needs {int(np.ceil(3 / rate))} training "
                f"rows, there are {border}; give a higher rate or more rows"
            )
    starts = [2 * border // 3 for border in borders]
    forecaster.fit(data.replace([series.rows(0, start) for series, start in zip(data, starts, strict=True)]))
    parts = []
    for series, start, border in zip(data, starts, borders, strict=True):
        expected, score = _scores(data, series, forecaster, start, horizon)
        calibration = score[: border - start]
        calibration = calibration[~np.isnan(calibration)]
        if len(calibration) < 1 / rate:
            raise UserError(f"{data.source}: series {series.name!r}: too few observed rows for a rate of {rate:g}")
        threshold = float(np.quantile(calibration, 1 - rate))
        found = score[border - start :]
        parts.append(
            pd.DataFrame(
                {
                    "unique_id": series.name,
                    "ds": series.stamps[border:],
                    "y": series.values[border:, 0],
                    "expected": expected[border - start :],
                    "score": found,
                    "threshold": threshold,
                    "anomaly": found > threshold,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _scores(
    data: SeriesSet, series: Series, forecaster: Forecaster, start: int, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return median and score of each row from ``start`` on, float64 (rows,)."""
    blocks = range(start, len(series), horizon)
    # Every block as a series of its own, so that a model reads them in batches.
    histories = data.replace([series.rows(0, begin) for begin in blocks])
    if data.future_names:
        raise UserError(f"{data.source}: covariates known in advance are not read by anomaly scores; leave them out")
    forecasts = forecaster.predict(histories, horizon, _LEVELS)
    if any(one.quantiles is None for one in forecasts):
        raise UserError(f"{forecaster.name} gives no quantiles, by which distances are measured; choose another model")
    low, median, high = (
        np.concatenate([one.quantiles[level, :, 0] for one in forecasts])[: len(series) - start]  # type: ignore[index]
        for level in range(3)
    )
    spread = (high - low) / _WIDTH
    before = series.values[:start]
    smallest = 1e-9 * max(1.0, float(np.abs(before[~np.isnan(before)]).max(initial=0.0)))
    return median, np.abs(series.values[start:, 0] - median) / np.maximum(spread, smallest)
