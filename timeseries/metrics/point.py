"""Errors of point forecasts. Missing targets (NaN) count for nothing; a forecast that is NaN is an error.

All take arrays of any equal shape and give the mean over what was observed, unless said otherwise.
"""

from __future__ import annotations

import numpy as np

from ...core.errors import UserError


def observed(targets: np.ndarray, forecasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and forecasts as float64 where the target was observed, (count,) each.

    Raises:
        ValueError: shapes differ.
        UserError: a forecast is not finite, or nothing was observed.
    """
    targets, forecasts = np.asarray(targets, dtype=np.float64), np.asarray(forecasts, dtype=np.float64)
    if targets.shape != forecasts.shape:
        raise ValueError(f"targets of shape {targets.shape}, forecasts of shape {forecasts.shape}")
    if not np.isfinite(forecasts).all():
        raise UserError("a forecast is not finite; forecasts must be numbers even where targets are missing")
    known = ~np.isnan(targets)
    if not known.any():
        raise UserError("no target was observed; there is nothing to score")
    return targets[known], forecasts[known]


def mse(targets: np.ndarray, forecasts: np.ndarray) -> float:
    """Mean squared error."""
    y, f = observed(targets, forecasts)
    return float(((y - f) ** 2).mean())


def rmse(targets: np.ndarray, forecasts: np.ndarray) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(mse(targets, forecasts)))


def mae(targets: np.ndarray, forecasts: np.ndarray) -> float:
    """Mean absolute error."""
    y, f = observed(targets, forecasts)
    return float(np.abs(y - f).mean())


def wape(targets: np.ndarray, forecasts: np.ndarray) -> float:
    """Σ|y - f| / Σ|y|, also called ND; infinite where all targets are 0 and an error is not."""
    y, f = observed(targets, forecasts)
    error, scale = float(np.abs(y - f).sum()), float(np.abs(y).sum())
    return error / scale if scale else (0.0 if error == 0 else float("inf"))


def mape(targets: np.ndarray, forecasts: np.ndarray) -> float:
    """Mean of |y - f| / |y|, a fraction.

    Raises:
        UserError: a target is 0, where it is not defined.
    """
    y, f = observed(targets, forecasts)
    if (y == 0).any():
        raise UserError("MAPE is not defined where a target is 0; use wape, mase or smape")
    return float(np.abs((y - f) / y).mean())


def smape(targets: np.ndarray, forecasts: np.ndarray) -> float:
    """Mean of 200 |y - f| / (|y| + |f|), in percent, 0/0 = 0: the definition of M4 (Makridakis et al. 2020)."""
    y, f = observed(targets, forecasts)
    scale = np.abs(y) + np.abs(f)
    return float(200 * np.where(scale > 0, np.abs(y - f) / np.where(scale > 0, scale, 1), 0).mean())


def seasonal_error(history: np.ndarray, season: int) -> float:
    """Mean |y_t - y_{t-season}| of the history, NaN where no such pair was observed; the scale of MASE.

    A history no longer than a season counts as unseasonal (season 1), as in GIFT-Eval.

    Args:
        history: all values before the forecast, (time,), NaN where missing.
        season: steps per season.
    """
    history = np.asarray(history, dtype=np.float64)
    season = season if len(history) > season else 1
    differences = np.abs(history[season:] - history[:-season])
    differences = differences[~np.isnan(differences)]
    return float(differences.mean()) if len(differences) else float("nan")


def mase(targets: np.ndarray, forecasts: np.ndarray, history: np.ndarray, season: int) -> float:
    """Mean absolute error over `seasonal_error` of one series (Hyndman and Koehler 2006); NaN where the latter is 0 or
    unknown, since a constant history gives no scale."""
    scale = seasonal_error(history, season)
    return mae(targets, forecasts) / scale if scale > 0 else float("nan")


def rmsse(targets: np.ndarray, forecasts: np.ndarray, history: np.ndarray, season: int) -> float:
    """Root of mean squared error over the mean squared seasonal difference of the history; NaN as with `mase`."""
    history = np.asarray(history, dtype=np.float64)
    season = season if len(history) > season else 1
    squares = (history[season:] - history[:-season]) ** 2
    squares = squares[~np.isnan(squares)]
    scale = float(squares.mean()) if len(squares) else 0.0
    return float(np.sqrt(mse(targets, forecasts) / scale)) if scale > 0 else float("nan")
