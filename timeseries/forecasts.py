"""What a forecaster takes and gives, and tables of forecasts in original units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd

from ..core.errors import UserError
from .data.long_format import Columns
from .data.series import SeriesSet


@dataclass(frozen=True)
class Forecast:
    """The forecast of one series, in original units.

    Args:
        name: of the series.
        stamps: (horizon,).
        point: float64 (horizon, channels); finite, whatever the history misses.
        levels: of the quantiles, in (0, 1), rising; may be empty.
        quantiles: float64 (levels, horizon, channels), rising along the levels.
    """

    name: str
    stamps: np.ndarray
    point: np.ndarray
    levels: tuple[float, ...] = ()
    quantiles: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.point).all():
            raise UserError(f"series {self.name!r}: the forecast is not finite; the model or its data is at fault")
        if self.quantiles is not None and (np.diff(self.quantiles, axis=0) < 0).any():
            raise UserError(f"series {self.name!r}: the quantiles of the forecast cross")


class Forecaster(Protocol):
    """Anything that is fitted to series and forecasts them; ``name`` heads its columns."""

    name: str

    def fit(self, data: SeriesSet) -> Self:
        """Learn from all of ``data``."""
        ...

    def predict(
        self,
        data: SeriesSet,
        horizon: int,
        levels: Sequence[float] = (),
        future: Mapping[str, np.ndarray] | None = None,
    ) -> list[Forecast]:
        """Forecast the ``horizon`` steps after each series of ``data``.

        Args:
            data: histories; may be others than those of ``fit``.
            horizon: steps.
            levels: of the quantiles wanted.
            future: covariates known in advance, by name of the series, float64 (horizon, covariates).
        """
        ...


def interval_levels(shares: Sequence[float]) -> tuple[float, ...]:
    """Return the quantile levels of central intervals in percent: [80] gives (0.1, 0.5, 0.9), the median included.

    Raises:
        UserError: a share outside (0, 100).
    """
    levels = {0.5}
    for share in shares:
        if not 0 < share < 100:
            raise UserError(f"level {share:g} must lie between 0 and 100 percent")
        levels |= {round((100 - share) / 200, 9), round((100 + share) / 200, 9)}
    return tuple(sorted(levels))


def forecast_table(
    forecasts: Sequence[Forecast],
    model: str,
    *,
    level: Sequence[float] = (),
    quantiles: Sequence[float] = (),
    channels: Sequence[str] = ("y",),
    columns: Columns = Columns(),  # noqa: B008  # frozen
) -> pd.DataFrame:
    """Return one row for each series, step and channel.

    Columns: series, stamp, ``channel`` where there are several, ``model``; ``model-lo-80`` and ``model-hi-80`` for each
    of ``level``; ``model-q0.1`` for each of ``quantiles``.

    Raises:
        UserError: a quantile that the forecasts do not have.
    """
    if (len(level) or len(quantiles)) and any(forecast.quantiles is None for forecast in forecasts):
        raise UserError(f"{model} gives points alone, so no intervals; leave them out (an empty level)")
    wanted = {f"{model}-q{value:g}": value for value in quantiles}
    for share in level:
        wanted[f"{model}-lo-{share:g}"] = (100 - share) / 200
        wanted[f"{model}-hi-{share:g}"] = (100 + share) / 200
    parts = []
    for forecast in forecasts:
        for index, channel in enumerate(channels):
            part: dict[str, object] = {columns.id: forecast.name, columns.time: forecast.stamps}
            if len(channels) > 1:
                part["channel"] = channel
            part[model] = forecast.point[:, index]
            for title, value in wanted.items():
                found = np.flatnonzero(np.isclose(forecast.levels, value, atol=1e-9))
                if len(found) == 0 or forecast.quantiles is None:
                    raise UserError(f"{model} has no quantile {value:g}; it was asked for {list(forecast.levels)}")
                part[title] = forecast.quantiles[found[0], :, index]
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
