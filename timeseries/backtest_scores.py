"""Scores of a table of back-tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def score_table(
    frame: pd.DataFrame,
    models: Sequence[str],
    scales: Mapping[str, float],
    level: Sequence[float] = (),
    by: str | None = None,
) -> pd.DataFrame:
    """Return a row for each model and each value of ``by``.

    Columns: ``by``, ``model``, ``mae``, ``rmse``, ``smape`` (percent), ``mase`` (where a series has a
    scale above 0), ``coverage_80`` for each of ``level``, and ``forecasts``, the number of targets. Missing targets
    count for nothing.

    Args:
        frame: of `longscan.timeseries.backtest.cross_validation`, with its usual names of columns.
        models: names.
        scales: seasonal error of each series.
        level: of the intervals in ``frame``.
        by: ``window``, ``step``, or None for one row for each model.
    """
    known = frame[frame["y"].notna()]
    groups = [(None, known)] if by is None else list(known.groupby(by, sort=True))
    rows = []
    for model in models:
        for value, part in groups:
            row: dict[str, object] = {} if by is None else {by: value}
            rows.append(row | {"model": model} | _scores(part, model, scales, level))
    return pd.DataFrame(rows)


def _scores(
    part: pd.DataFrame, model: str, scales: Mapping[str, float], level: Sequence[float]
) -> dict[str, float | int]:
    y, forecast = part["y"].to_numpy(dtype=np.float64), part[model].to_numpy(dtype=np.float64)
    errors = np.abs(y - forecast)
    sizes = np.abs(y) + np.abs(forecast)
    scale = part["unique_id"].map(scales).to_numpy(dtype=np.float64)
    scaled = errors[scale > 0] / scale[scale > 0]
    found: dict[str, float | int] = {
        "mae": float(errors.mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "smape": float(200 * np.divide(errors, sizes, out=np.zeros_like(errors), where=sizes > 0).mean()),
        "mase": float(scaled.mean()) if len(scaled) else float("nan"),
    }
    for share in level:
        inside = (y >= part[f"{model}-lo-{share:g}"]) & (y <= part[f"{model}-hi-{share:g}"])
        found[f"coverage_{share:g}"] = float(inside.mean())
    return found | {"forecasts": len(part)}
