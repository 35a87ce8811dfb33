"""What a forecaster was trained on: frequency, columns, scaling; kept with its weights, so no verb has to be told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..core.data_card import DataCard
from ..core.errors import UserError
from .data.calendar import Calendar
from .data.long_format import Columns
from .data.series import SeriesSet
from .frequency import Frequency, parse_frequency
from .ltsf import LTSFData


@dataclass(frozen=True, kw_only=True)
class TimeSeriesCard(DataCard):
    """What a model reads and what its outputs mean.

    Args:
        lookback: steps read.
        horizon: steps that it was trained to predict.
        frequency: pandas alias or integer step; None for irregular series.
        season: steps per season.
        channels: of a series, in order; one that has other names in other tables where there is only one.
        columns: names of the columns of a long table, and its covariates.
        calendar: whether it reads calendar features; where not all of the frequency, their names.
        mean, std: per channel, of the training rows, where the model knows its channels; what models read and give is
            in original units in any case.
        deviation: root mean squared error at each step and channel on validation windows, in units of ``std``, or of
            the series' own scale where that is None; the width of the intervals of a model of points.
        features: of the long-term protocol: ``M``, ``S`` or ``MS``; None where it was not trained under it.
        source: name of the data.
        trained_until: the last stamp among the training targets, as text or an integer.
    """

    domain: ClassVar[str] = "timeseries"
    required: ClassVar[tuple[str, ...]] = ("lookback", "horizon")

    lookback: int
    horizon: int
    frequency: str | int | None = None
    season: int = 1
    channels: tuple[str, ...] = ("y",)
    columns: Columns = Columns()  # noqa: RUF009  # frozen
    calendar: bool | tuple[str, ...] = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    deviation: tuple[tuple[float, ...], ...] | None = None
    features: str | None = None
    source: str = ""
    trained_until: str | int | None = None

    @classmethod
    def parsed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the constructor for plain values."""
        found = {name: _tuples(value) for name, value in values.items()}
        if "columns" in found:
            found["columns"] = Columns(**{name: _tuples(value) for name, value in values["columns"].items()})
        return found

    def check_frequency(self, data: SeriesSet) -> None:
        """Refuse series of another step.

        Raises:
            UserError: the steps differ; integer stamps fit any model, their step has no unit.
        """
        if self.frequency is None or data.frequency is None or data.frequency.is_integer:
            return
        if isinstance(self.frequency, int):
            return
        if parse_frequency(self.frequency) != data.frequency:
            raise UserError(
                f"{data.source}: its steps are {data.frequency}, the model was trained on {self.frequency}; resample "
                "the data or train a model for it"
            )


def describe_ltsf(data: LTSFData, lookback: int, horizon: int, calendar: Calendar) -> TimeSeriesCard:
    """Return the card of a model of the long-term protocol."""
    return TimeSeriesCard(
        lookback=lookback,
        horizon=horizon,
        frequency=data.frequency.value,
        season=data.frequency.season_length,
        channels=data.channels,
        calendar=calendar if isinstance(calendar, bool) else tuple(calendar),
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
        features=data.features,
        source=data.name,
        trained_until=_stamp(data.stamps[data.borders.train - 1]),
    )


def describe_series(
    data: SeriesSet, lookback: int, horizon: int, calendar: Calendar, held_rows: int, columns: Columns
) -> TimeSeriesCard:
    """Return the card of a global model of ``data``, whose series each end in ``held_rows`` rows not trained on."""
    frequency: Frequency | None = data.frequency
    ends = [series.stamps[len(series) - held_rows - 1] for series in data if len(series) > held_rows]
    return TimeSeriesCard(
        lookback=lookback,
        horizon=horizon,
        frequency=None if frequency is None else frequency.value,
        season=data.season,
        channels=data.channels,
        columns=dataclasses.replace(
            columns, historic=data.historic_names, future=data.future_names, static=data.static_names
        ),
        calendar=calendar if isinstance(calendar, bool) else tuple(calendar),
        source=Path(data.source).name,
        trained_until=_stamp(max(ends)) if ends else None,
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _stamp(value: Any) -> str | int:
    return int(value) if isinstance(value, (int, np.integer)) else str(np.datetime64(value, "s"))
