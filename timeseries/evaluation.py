"""Forecasters scored as the M4 competition and GIFT-Eval score them."""

from __future__ import annotations

from ..core.errors import UserError
from .backtest import RollingOrigin
from .data.series import SeriesSet
from .forecasts import Forecaster
from .metrics.gift import GiftScore, gift_score, window_count
from .metrics.m4 import M4Score, m4_score
from .metrics.probabilistic import DECILES


def evaluate_m4(train: SeriesSet, test: SeriesSet, forecaster: Forecaster) -> tuple[M4Score, GiftScore | None]:
    """Fit on ``train``, forecast ``test`` once, and return the competition's scores and GIFT-Eval's of the same task.

    The latter are None of a forecaster without quantiles.

    Args:
        train: of `longscan.timeseries.data.read_m4`.
        test: what followed, in the same order.
        forecaster: gives the nine deciles, or points alone.

    Raises:
        UserError: a forecast that is not finite.
    """
    horizon = len(test[0])
    forecasts = forecaster.fit(train).predict(train, horizon, DECILES)
    histories = [series.values[:, 0] for series in train]
    targets = [series.values[:, 0] for series in test]
    points = m4_score(histories, targets, [forecast.point[:, 0] for forecast in forecasts], train.season)
    if any(forecast.quantiles is None for forecast in forecasts):
        return points, None
    return points, gift_score(histories, targets, _quantiles(forecasts, forecaster.name), train.season)


def evaluate_gift(
    data: SeriesSet, forecaster: Forecaster, horizon: int, windows: int | None = None, refit: bool | int = False
) -> GiftScore:
    """Score on windows one after the other at the end of each series; each history is everything before its window.

    Args:
        data: several channels are scored as separate series.
        forecaster: fitted on what lies before the first window; gives the nine deciles.
        horizon: steps.
        windows: per series; as many as the benchmark takes where None.
        refit: fit again at later windows; see `RollingOrigin`.

    Raises:
        UserError: series too short, or a forecast that is not finite.
    """
    data = data.univariate()
    count = window_count(min(len(series) for series in data), horizon) if windows is None else windows
    histories, targets, quantiles = [], [], []
    for window in RollingOrigin(horizon, count, refit=refit).split(data):
        if window.refit:
            forecaster.fit(window.fit_data)
        future = {actual.name: actual.future for actual in window.actual} if data.future_names else None
        forecasts = forecaster.predict(window.history, horizon, DECILES, future)
        histories += [series.values[:, 0] for series in window.history]
        targets += [series.values[:, 0] for series in window.actual]
        quantiles += _quantiles(forecasts, forecaster.name)
    return gift_score(histories, targets, quantiles, data.season)


def _quantiles(forecasts: list, name: str) -> list:
    found = [None if forecast.quantiles is None else forecast.quantiles[:, :, 0] for forecast in forecasts]
    if any(one is None for one in found):
        raise UserError(f"{name} gives no quantiles; these scores need the nine deciles")
    return found
