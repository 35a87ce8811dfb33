"""Scores of forecasts, with the definitions of M4 and GIFT-Eval; none needs torch."""

from __future__ import annotations

from .gift import GiftScore, gift_score, relative_score
from .m4 import M4Score, m4_score
from .point import mae, mape, mase, mse, rmse, rmsse, seasonal_error, smape, wape
from .probabilistic import (
    DECILES,
    coverage,
    crps_from_quantiles,
    crps_from_samples,
    interval_of,
    interval_score,
    pinball,
    weighted_quantile_loss,
)

__all__ = [
    "DECILES",
    "GiftScore",
    "M4Score",
    "coverage",
    "crps_from_quantiles",
    "crps_from_samples",
    "gift_score",
    "interval_of",
    "interval_score",
    "m4_score",
    "mae",
    "mape",
    "mase",
    "mse",
    "pinball",
    "relative_score",
    "rmse",
    "rmsse",
    "seasonal_error",
    "smape",
    "wape",
    "weighted_quantile_loss",
]
