"""GIFT-Eval's scores (Aksu et al. 2024, arXiv:2410.10393): pooled over all windows of a task, nine quantiles.

A task is a data set with a horizon. Multivariate series are scored as separate ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from .point import observed, seasonal_error
from .probabilistic import DECILES, coverage, interval_of, weighted_quantile_loss

#: Steps to forecast by unit of the frequency, times 10 for medium and 15 for long terms.
HORIZONS = {"ME": 12, "MS": 12, "W": 8, "D": 30, "h": 48, "min": 48, "s": 60}


def window_count(shortest: int, horizon: int) -> int:
    """Number of test windows, one after the other at the end of each series: a tenth of the shortest series, 1 to 20.

    The M4 sets have 1 in any case.
    """
    return min(20, max(1, math.ceil(0.1 * shortest / horizon)))


@dataclass(frozen=True)
class GiftScore:
    """Scores of one task. ``undefined`` windows have a constant history, and are left out of MASE alone."""

    mase: float
    wql: float
    mae: float
    mse: float
    coverage_80: float
    windows: int
    undefined: int = 0

    def __str__(self) -> str:
        left_out = f", {self.undefined} left out of MASE" if self.undefined else ""
        return (
            f"MASE {self.mase:.4f}, WQL {self.wql:.4f}, 80 % coverage {self.coverage_80:.3f} "
            f"over {self.windows} windows{left_out}"
        )


def gift_score(
    histories: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    quantiles: Sequence[np.ndarray],
    season: int,
    levels: Sequence[float] = DECILES,
) -> GiftScore:
    """Score quantile forecasts.

    MASE is the mean over windows and steps of |y - median| / `seasonal_error` of the window's history; WQL is
    `weighted_quantile_loss` over the whole task; MAE and MSE are of the median.

    Args:
        histories: everything before each window, (time,), NaN where missing.
        targets: (horizon,) each, NaN where missing.
        quantiles: (levels, horizon) each.
        season: steps per season.
        levels: of the quantiles; 0.1, 0.5 and 0.9 among them.

    Raises:
        UserError: numbers of windows differ, a level is missing, or a forecast is not finite.
    """
    if not len(histories) == len(targets) == len(quantiles) > 0:
        raise UserError(
            f"{len(histories)} histories, {len(targets)} targets, {len(quantiles)} forecasts; give one of each"
        )
    truth = np.stack([np.asarray(target, dtype=np.float64) for target in targets])
    forecast = np.stack([np.asarray(one, dtype=np.float64) for one in quantiles], 1)
    median = interval_of(forecast, levels, 0.0)[0]
    y, f = observed(truth, median)
    scale = np.array([seasonal_error(history, season) for history in histories])
    defined = scale > 0
    errors = np.abs(truth - median)[defined] / scale[defined, None]
    return GiftScore(
        mase=float(np.nanmean(errors)) if defined.any() else float("nan"),
        wql=weighted_quantile_loss(truth, forecast, levels),
        mae=float(np.abs(y - f).mean()),
        mse=float(((y - f) ** 2).mean()),
        coverage_80=coverage(truth, *interval_of(forecast, levels, 0.8)),
        windows=len(targets),
        undefined=int((~defined).sum()),
    )


def relative_score(scores: Iterable[float], baselines: Iterable[float]) -> float:
    """Geometric mean over tasks of score / seasonal naive's score, the leaderboard's number."""
    ratios = [score / baseline for score, baseline in zip(scores, baselines, strict=True)]
    if not ratios or min(ratios) <= 0:
        raise UserError("a relative score needs at least one task, and positive scores")
    return float(np.exp(np.mean(np.log(ratios))))
