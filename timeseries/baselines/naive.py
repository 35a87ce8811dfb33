"""Forecasts without parameters: the last value, the last season, and Gaussian intervals about it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.errors import UserError
from ..data.regularity import forward_filled


def repeat_last(inputs: np.ndarray, horizon: int) -> np.ndarray:
    """Repeat the last value: (windows, lookback, channels) to (windows, horizon, channels)."""
    return np.repeat(inputs[:, -1:], horizon, axis=1)


def repeat_season(inputs: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Repeat the last ``season`` steps: (windows, lookback, channels) to (windows, horizon, channels).

    Raises:
        UserError: the lookback is shorter than a season.
    """
    if not 1 <= season <= inputs.shape[1]:
        raise UserError(f"season={season} does not fit the lookback {inputs.shape[1]}; lengthen the lookback")
    return inputs[:, inputs.shape[1] - season :][:, np.arange(horizon) % season]


def last_season(values: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Return the seasonal naive forecast of one series, float64 (horizon,).

    Each step takes the value one or more whole seasons earlier; where that is missing, the last known one of its phase,
    and where the phase was never seen, the last known value.

    Args:
        values: history (time,), NaN where missing.
        horizon: steps.
        season: steps per season; 1 repeats the last value. A history shorter than a season repeats the last value.

    Raises:
        UserError: nothing was ever observed.
    """
    known = np.flatnonzero(~np.isnan(values))
    if len(known) == 0:
        raise UserError("a series without any observed value cannot be forecast; drop it")
    season = season if len(values) >= season else 1
    padded = np.concatenate([np.full(-len(values) % season, np.nan), values]).reshape(-1, season)
    latest = forward_filled(padded)[-1]
    latest = np.where(np.isnan(latest), values[known[-1]], latest)
    return latest[np.arange(horizon) % season]


def seasonal_naive_quantiles(
    values: np.ndarray, horizon: int, season: int, levels: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the seasonal naive forecast (horizon,) and its Gaussian quantiles (levels, horizon) of one series.

    σ² is the mean of (y_t - y_{t-season})² over the history where both are known; it grows with every season ahead:
    σ_h = σ √(⌊(h-1)/season⌋ + 1). The statistical baseline of GIFT-Eval (Aksu et al. 2024). A history no longer than a
    season counts as unseasonal; where no difference is known, σ is 0.

    Raises:
        UserError: nothing was observed, or a level outside (0, 1).
    """
    from scipy.special import ndtri

    chosen = np.asarray(levels, dtype=np.float64)
    if ((chosen <= 0) | (chosen >= 1)).any():
        raise UserError(f"quantile levels {list(levels)} must lie between 0 and 1")
    season = season if len(values) > season else 1
    point = last_season(values, horizon, season)
    squares = (values[season:] - values[:-season]) ** 2
    squares = squares[~np.isnan(squares)]
    sigma = np.sqrt(squares.mean()) if len(squares) else 0.0
    spread = sigma * np.sqrt(np.arange(horizon) // season + 1.0)
    return point, point + ndtri(chosen)[:, None] * spread
