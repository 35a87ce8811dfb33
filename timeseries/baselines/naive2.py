"""Naive2, the benchmark of the M competitions: the last value, seasonally adjusted where a test finds a season."""

from __future__ import annotations

import numpy as np


def is_seasonal(values: np.ndarray, season: int) -> bool:
    """Whether the autocorrelation at the seasonal lag is significant at 90 %.

    |r_m| > 1.645 √((1 + 2 Σ_{i<m} r_i²) / n), which needs three seasons of history.

    Args:
        values: without missing ones, (time,).
        season: m.
    """
    count = len(values)
    if season < 2 or count < 3 * season:
        return False
    centred = values - values.mean()
    variance = centred @ centred
    if variance == 0:
        return False
    correlation = np.array([centred[lag:] @ centred[:-lag] for lag in range(1, season + 1)]) / variance
    limit = 1.645 * np.sqrt((1 + 2 * (correlation[:-1] ** 2).sum()) / count)
    return bool(abs(correlation[-1]) > limit)


def seasonal_indices(values: np.ndarray, season: int) -> np.ndarray:
    """Return the factor of each phase (season,), mean 1, by classical multiplicative decomposition.

    The trend is the centred moving average over a season, with half weights at the ends where ``season`` is even; the
    factors are the means of value / trend by phase.
    """
    weights = np.ones(season) / season
    if season % 2 == 0:
        weights = np.concatenate([[0.5], np.ones(season - 1), [0.5]]) / season
    half = len(weights) // 2
    ratio = np.full(len(values), np.nan)
    ratio[half : len(values) - half] = values[half : len(values) - half] / np.convolve(values, weights, "valid")
    padded = np.concatenate([ratio, np.full(-len(ratio) % season, np.nan)])
    factors = np.nanmean(padded.reshape(-1, season), 0)
    return factors / factors.mean()


def naive2(values: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Return the forecast (horizon,) of a history without missing values (time,)."""
    values = np.asarray(values, dtype=np.float64)
    if not is_seasonal(values, season):
        return np.full(horizon, values[-1])
    factors = seasonal_indices(values, season)
    phases = (len(values) + np.arange(horizon)) % season
    return values[-1] / factors[(len(values) - 1) % season] * factors[phases]
