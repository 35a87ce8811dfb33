"""Choosing a forecaster for a data set by back-tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import UserError
from .backtest import RollingOrigin
from .data.series import SeriesSet
from .forecasts import Forecaster
from .metrics import gift_score
from .metrics.probabilistic import DECILES

#: What ``auto`` compares where nothing else is named: baselines, and a model that is trained on the data.
CANDIDATES = ("seasonal-naive", "repeat-last", "ridge-nlinear", "s4d_patch_forecaster")


@dataclass(frozen=True)
class Trial:
    """What a back-test said of one candidate.

    Args:
        name: of the candidate.
        mase, wql, coverage_80: see `longscan.timeseries.metrics.gift_score`; NaN where it could not be scored.
        windows: over how many.
        problem: why it could not be scored.
    """

    name: str
    mase: float = float("nan")
    wql: float = float("nan")
    coverage_80: float = float("nan")
    windows: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Selection:
    """The choice, and what it was made by.

    Args:
        chosen: name of the best candidate.
        trials: of all, the best first.
        reason: one sentence.
        left_out: names of series that were too short for the back-test.
    """

    chosen: str
    trials: tuple[Trial, ...]
    reason: str
    left_out: tuple[str, ...] = ()


def back_test_windows(data: SeriesSet, horizon: int, most: int = 3) -> int:
    """Return how many windows leave half of the series at least three horizons of history; 0 where none does."""
    middle = int(np.median([len(series) for series in data]))
    return max(0, min(most, middle // horizon - 3))


def select(data: SeriesSet, candidates: Sequence[tuple[str, Forecaster]], horizon: int, most: int = 3) -> Selection:
    """Back-test candidates on the ends of the series, and choose the one with the least weighted quantile loss.

    A candidate is fitted on what lies before the first window alone. One that cannot be (too little history for it, no
    quantiles) is passed over, and the selection says so.

    Args:
        data: series of one channel each.
        candidates: name and forecaster; at least one.
        horizon: steps.
        most: windows.

    Raises:
        UserError: no candidate could be fitted.
    """
    windows = back_test_windows(data, horizon, most)
    if windows == 0:
        name = "seasonal-naive" if data.season > 1 else "repeat-last"
        longest = max(len(series) for series in data)
        reason = f"the series (at most {longest} rows) are too short for a back-test of horizon {horizon}"
        return Selection(name, (), f"{name}, since {reason}")
    origins = RollingOrigin(horizon, windows, short_series="drop")
    kept = data.require_length(horizon * (windows + 1) + 1, "the back-test", "drop")
    left_out = tuple(name for name in data.names if name not in set(kept.names))
    trials = [_trial(name, forecaster, kept, origins) for name, forecaster in candidates]
    trials.sort(key=lambda trial: trial.wql if trial.wql == trial.wql else np.inf)
    best = trials[0]
    if best.wql != best.wql:
        scored = [trial for trial in trials if not trial.problem]
        if not scored:
            raise UserError(f"{data.source}: no candidate could be back-tested ({best.name}: {best.problem})")
        name = scored[0].name
        reason = (
            f"{name}, the first of the candidates: all targets of the back-test are 0, by which no loss is weighted"
        )
        return Selection(name, tuple(trials), reason, left_out)
    reason = f"{best.name} has the least weighted quantile loss, {best.wql:.4f} over {best.windows} windows"
    rivals = [trial for trial in trials[1:] if trial.wql == trial.wql]
    if rivals:
        second = rivals[0]
        share = 100 * (1 - best.wql / second.wql) if second.wql else 0.0
        reason += f", {share:.1f} % below the next best, {second.name}"
    return Selection(best.name, tuple(trials), reason, left_out)


def _trial(name: str, forecaster: Forecaster, data: SeriesSet, origins: RollingOrigin) -> Trial:
    histories: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    quantiles: list[Any] = []
    try:
        for window in origins.split(data):
            if window.refit:
                forecaster.fit(window.fit_data)
            future = {actual.name: actual.future for actual in window.actual} if data.future_names else None
            forecasts = forecaster.predict(window.history, origins.horizon, DECILES, future)
            for one, actual, forecast in zip(window.history, window.actual, forecasts, strict=True):
                if forecast.quantiles is None:
                    raise UserError("it gives no quantiles")
                if np.isnan(actual.values).all():
                    continue  # nothing to compare with
                histories.append(one.values[:, 0])
                targets.append(actual.values[:, 0])
                quantiles.append(forecast.quantiles[:, :, 0])
        score = gift_score(histories, targets, quantiles, data.season)
    except UserError as error:
        return Trial(name, problem=str(error))
    return Trial(name, score.mase, score.wql, score.coverage_80, score.windows)
