"""The baselines as forecasters of sets of series, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from ...core.errors import UserError, nearest
from ..data.regularity import forward_filled
from ..data.series import Series, SeriesSet
from ..forecasts import Forecast
from ..ltsf import LTSFData
from .naive import repeat_last, repeat_season, seasonal_naive_quantiles
from .naive2 import naive2
from .ridge import Kind, RidgeForecaster, series_scale


class SeasonalNaive:
    """Repeats the last season, with Gaussian quantiles; season 1 repeats the last value.

    Args:
        season: steps per season; that of the data where None.
        name: heads its columns.
    """

    def __init__(self, season: int | None = None, name: str = "seasonal-naive") -> None:
        self.season, self.name = season, name

    def fit(self, data: SeriesSet) -> Self:
        """Nothing to learn."""
        return self

    def predict(
        self,
        data: SeriesSet,
        horizon: int,
        levels: Sequence[float] = (),
        future: Mapping[str, np.ndarray] | None = None,
    ) -> list[Forecast]:
        """Forecast each series; see `longscan.timeseries.forecasts.Forecaster`."""
        season = data.season if self.season is None else self.season
        forecasts = []
        for series in data:
            _require_observed(series, data.source)
            columns = [seasonal_naive_quantiles(column, horizon, season, levels) for column in series.values.T]
            point, quantiles = (np.stack([column[part] for column in columns], -1) for part in (0, 1))
            forecasts.append(_forecast(data, series, horizon, point, levels, quantiles))
        return forecasts


class Naive(SeasonalNaive):
    """Repeats the last value, with Gaussian quantiles."""

    def __init__(self, name: str = "repeat-last") -> None:
        super().__init__(1, name)


class Naive2:
    """Naive2 of the M competitions: the last value, seasonally adjusted where a test finds a season; no quantiles.

    Args:
        season: steps per season; that of the data where None.
        name: heads its columns.
    """

    def __init__(self, season: int | None = None, name: str = "naive2") -> None:
        self.season, self.name = season, name

    def fit(self, data: SeriesSet) -> Self:
        """Nothing to learn."""
        return self

    def predict(
        self,
        data: SeriesSet,
        horizon: int,
        levels: Sequence[float] = (),
        future: Mapping[str, np.ndarray] | None = None,
    ) -> list[Forecast]:
        """Forecast each series, missing values carried forward; ``levels`` are passed over."""
        season = data.season if self.season is None else self.season
        forecasts = []
        for series in data:
            _require_observed(series, data.source)
            known = forward_filled(forward_filled(series.values)[::-1])[::-1]
            point = np.stack([naive2(column, horizon, season) for column in known.T], -1)
            forecasts.append(_forecast(data, series, horizon, point, (), np.empty((0, horizon, point.shape[1]))))
        return forecasts


class LinearRidge:
    """One closed-form linear map for all series, each on its own scale; see `RidgeForecaster`.

    Quantiles are Gaussian about the forecast, with the deviation of each step that the held-out windows had (the
    training windows, corrected for what was learned of them, where fewer than 30 were held out).

    Args:
        lookback: steps read; a shorter history is lengthened with its first value.
        horizon: steps that the map is fitted for.
        kind: ``linear``, ``nlinear`` or ``rlinear``.
        name: heads its columns.
    """

    def __init__(self, lookback: int, horizon: int, kind: Kind = "nlinear", name: str | None = None) -> None:
        self.ridge = RidgeForecaster(lookback, horizon, kind)
        self.name = name or f"ridge-{kind}"

    def fit(self, data: SeriesSet) -> Self:
        """Fit to every channel of every series.

        Raises:
            UserError: no complete window of lookback and horizon.
        """
        self.ridge.fit_series(column for series in data for column in series.values.T)
        return self

    def predict(
        self,
        data: SeriesSet,
        horizon: int,
        levels: Sequence[float] = (),
        future: Mapping[str, np.ndarray] | None = None,
    ) -> list[Forecast]:
        """Forecast each series; see `longscan.timeseries.forecasts.Forecaster`.

        Raises:
            UserError: a horizon longer than the one fitted for.
        """
        from scipy.special import ndtri

        if horizon > self.ridge.horizon:
            raise UserError(f"{self.name} was fitted for {self.ridge.horizon} steps, not {horizon}; fit it for those")
        forecasts = []
        for series in data:
            _require_observed(series, data.source)
            scale = np.array([series_scale(column) for column in series.values.T])
            history = forward_filled(series.values / scale)
            # Before the first observation of a channel there is nothing to carry forward; its first value stands in.
            history = forward_filled(history[::-1])[::-1][-self.ridge.lookback :]
            missing = self.ridge.lookback - len(history)
            history = np.concatenate([np.repeat(history[:1], missing, 0), history])
            point = self.ridge(history[None])[0, :horizon] * scale
            spread = self.ridge.deviation[:horizon, None] * scale
            quantiles = point + ndtri(np.asarray(levels, dtype=np.float64))[:, None, None] * spread
            forecasts.append(_forecast(data, series, horizon, point, levels, quantiles))
        return forecasts


def _require_observed(series: Series, source: str) -> None:
    if np.isnan(series.values).all(0).any():
        raise UserError(f"{source}: series {series.name!r} has no observed value to forecast from; drop it")


def _forecast(
    data: SeriesSet, series: Series, horizon: int, point: np.ndarray, levels: Sequence[float], quantiles: np.ndarray
) -> Forecast:
    if data.frequency is None:
        raise UserError(f"{data.source}: irregular series have no next stamp; give frequency")
    stamps = data.frequency.after(series.stamps[-1], horizon)
    return Forecast(series.name, stamps, point, tuple(levels), quantiles if len(levels) else None)


#: Name -> forecaster for (season or None, lookback, horizon).
BASELINES: dict[str, Callable[[int | None, int, int], Any]] = {
    "repeat-last": lambda season, lookback, horizon: Naive(),
    "seasonal-naive": lambda season, lookback, horizon: SeasonalNaive(season),
    "naive2": lambda season, lookback, horizon: Naive2(season),
    "ridge-nlinear": lambda season, lookback, horizon: LinearRidge(lookback, horizon, "nlinear"),
    "ridge-rlinear": lambda season, lookback, horizon: LinearRidge(lookback, horizon, "rlinear"),
    "ridge-linear": lambda season, lookback, horizon: LinearRidge(lookback, horizon, "linear"),
}


def make_baseline(name: str, *, lookback: int, horizon: int, season: int | None = None) -> Any:
    """Return a baseline forecaster by name; see `BASELINES`.

    Raises:
        UserError: an unknown name.
    """
    if name not in BASELINES:
        raise UserError(f"no baseline {name!r} ({nearest(name, BASELINES)})")
    return BASELINES[name](season, lookback, horizon)


def ltsf_baseline(name: str, data: LTSFData, lookback: int, horizon: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a baseline fitted under the protocol, for `longscan.timeseries.ltsf.evaluate_ltsf`.

    Raises:
        UserError: an unknown name, or a lookback shorter than the season.
    """
    if name not in BASELINES:
        raise UserError(f"no baseline {name!r} ({nearest(name, BASELINES)})")
    if name == "repeat-last":
        return partial(repeat_last, horizon=horizon)
    if name == "naive2":
        raise UserError("naive2 is the benchmark of M4, not of this protocol; use seasonal-naive or repeat-last")
    if name == "seasonal-naive":
        return partial(repeat_season, horizon=horizon, season=data.frequency.season_length)
    return RidgeForecaster(lookback, horizon, name.removeprefix("ridge-")).fit_ltsf(data)  # type: ignore[arg-type]
