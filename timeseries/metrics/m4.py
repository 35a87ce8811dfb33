"""The M4 competition's scores: averages over series, against its benchmark Naive2 (Makridakis et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from ..baselines.naive2 import naive2
from .point import mase, smape


@dataclass(frozen=True)
class M4Score:
    """Means over series: sMAPE in percent, MASE, and OWA = ½ (sMAPE / its Naive2's + MASE / its Naive2's)."""

    smape: float
    mase: float
    owa: float
    series: int

    def __str__(self) -> str:
        return f"sMAPE {self.smape:.3f}, MASE {self.mase:.3f}, OWA {self.owa:.3f} over {self.series} series"


def m4_score(
    histories: Sequence[np.ndarray], targets: Sequence[np.ndarray], forecasts: Sequence[np.ndarray], season: int
) -> M4Score:
    """Score point forecasts of many series.

    Args:
        histories: training values of each series, float64 (time,).
        targets: what followed, (horizon,) each.
        forecasts: (horizon,) each.
        season: steps per season, of `longscan.timeseries.data.m4.GROUPS`.

    Raises:
        UserError: numbers of series differ, a forecast is not finite, or a constant history, which has no MASE.
    """
    if not len(histories) == len(targets) == len(forecasts) > 0:
        raise UserError(
            f"{len(histories)} histories, {len(targets)} targets, {len(forecasts)} forecasts; give one of each"
        )
    benchmark = [naive2(history, len(target), season) for history, target in zip(histories, targets, strict=True)]
    model, reference = (
        np.array(
            [
                (smape(target, forecast), mase(target, forecast, history, season))
                for history, target, forecast in zip(histories, targets, chosen, strict=True)
            ]
        )
        for chosen in (forecasts, benchmark)
    )
    constant = np.flatnonzero(np.isnan(reference[:, 1]))
    if len(constant):
        raise UserError(
            f"series {constant[0] + 1} of the set is constant before the forecast, so MASE is undefined; drop it"
        )
    # Averages are taken first, their ratio after; the mean of each series' ratio is another number.
    means, base = model.mean(0), reference.mean(0)
    return M4Score(float(means[0]), float(means[1]), float((means / base).mean()), len(histories))
