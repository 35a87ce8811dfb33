"""Scores of quantiles and samples. Missing targets (NaN) count for nothing; a forecast that is NaN is an error.

Quantile forecasts are (levels, ...) beside targets (...).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.errors import UserError

#: The levels of GIFT-Eval and most benchmarks.
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def pinball(targets: np.ndarray, quantiles: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return max(q e, (q - 1) e), e = y - forecast, of each level and target: float64 (levels, ...), NaN where missing.

    Raises:
        ValueError: shapes do not fit.
        UserError: a level outside (0, 1), or a forecast that is not finite.
    """
    targets, quantiles = np.asarray(targets, dtype=np.float64), np.asarray(quantiles, dtype=np.float64)
    chosen = np.asarray(levels, dtype=np.float64)
    if quantiles.shape != (len(chosen), *targets.shape):
        raise ValueError(f"quantiles of shape {quantiles.shape} for {len(chosen)} levels of targets {targets.shape}")
    if ((chosen <= 0) | (chosen >= 1)).any():
        raise UserError(f"quantile levels {list(levels)} must lie between 0 and 1")
    if not np.isfinite(quantiles).all():
        raise UserError("a quantile forecast is not finite; forecasts must be numbers even where targets are missing")
    errors = targets - quantiles
    level = chosen.reshape(-1, *[1] * targets.ndim)
    return np.maximum(level * errors, (level - 1) * errors)


def weighted_quantile_loss(targets: np.ndarray, quantiles: np.ndarray, levels: Sequence[float]) -> float:
    """WQL: the mean over levels of 2 Σ pinball / Σ|y|, sums over all targets: GIFT-Eval's stand-in for the CRPS
    (``mean_weighted_sum_quantile_loss``). NaN where all targets are 0."""
    loss = np.nansum(pinball(targets, quantiles, levels).reshape(len(levels), -1), 1)
    scale = float(np.nansum(np.abs(targets)))
    return float((2 * loss / scale).mean()) if scale > 0 else float("nan")


def crps_from_quantiles(targets: np.ndarray, quantiles: np.ndarray, levels: Sequence[float]) -> float:
    """Mean over targets and levels of 2 pinball, an approximation of the CRPS in units of the data."""
    return float(2 * np.nanmean(pinball(targets, quantiles, levels)))


def crps_from_samples(targets: np.ndarray, samples: np.ndarray) -> float:
    """Mean of E|X - y| - ½ E|X - X'| over targets, X and X' drawn from the samples with replacement (Gneiting and
    Raftery 2007); exact for the empirical distribution.

    Args:
        targets: (...), NaN where missing.
        samples: (samples, ...).

    Raises:
        ValueError: shapes do not fit.
        UserError: a sample is not finite.
    """
    targets, samples = np.asarray(targets, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if samples.shape[1:] != targets.shape:
        raise ValueError(f"samples of shape {samples.shape} for targets of shape {targets.shape}")
    if not np.isfinite(samples).all():
        raise UserError("a sample is not finite; forecasts must be numbers even where targets are missing")
    count = len(samples)
    ordered = np.sort(samples, axis=0)
    # E|X - X'| of sorted x_1..x_n is (2 / n²) Σ (2 i - n - 1) x_i: no n² pairs.
    weights = (2 * np.arange(1, count + 1) - count - 1).reshape(-1, *[1] * targets.ndim)
    spread = 2 * (weights * ordered).sum(0) / count**2
    return float(np.nanmean(np.abs(samples - targets).mean(0) - 0.5 * spread))


def coverage(targets: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """Share of the observed targets within [lower, upper]; a good 80 % interval has 0.8.

    Raises:
        UserError: lower exceeds upper, or nothing was observed.
    """
    targets = np.asarray(targets, dtype=np.float64)
    if (np.asarray(lower) > np.asarray(upper)).any():
        raise UserError("a lower bound exceeds its upper bound; the quantiles cross")
    known = ~np.isnan(targets)
    if not known.any():
        raise UserError("no target was observed; there is nothing to score")
    return float(((targets >= lower) & (targets <= upper))[known].mean())


def interval_of(quantiles: np.ndarray, levels: Sequence[float], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of the central interval that is to hold ``share`` of the targets.

    Raises:
        UserError: its two quantiles are not among ``levels``.
    """
    chosen = np.asarray(levels, dtype=np.float64)
    bounds = []
    for wanted in ((1 - share) / 2, (1 + share) / 2):
        index = np.flatnonzero(np.isclose(chosen, wanted, atol=1e-9))
        if len(index) == 0:
            raise UserError(f"an interval of {share:g} needs the quantile {wanted:g}; levels are {list(levels)}")
        bounds.append(np.asarray(quantiles)[index[0]])
    return bounds[0], bounds[1]


def interval_score(targets: np.ndarray, lower: np.ndarray, upper: np.ndarray, alpha: float) -> np.ndarray:
    """Return (U - L) + 2/α (L - y)₊ + 2/α (y - U)₊ of each target, NaN where missing; MSIS is its mean over the
    seasonal error of the series (M4: α = 0.05)."""
    targets = np.asarray(targets, dtype=np.float64)
    below, above = np.maximum(lower - targets, 0), np.maximum(targets - upper, 0)
    return (np.asarray(upper) - lower) + 2 / alpha * (below + above)
