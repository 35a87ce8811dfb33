"""Series on a time axis, and sets of them: what every reader gives and every model takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...core.errors import UserError, nearest
from ..frequency import Frequency


@dataclass(frozen=True)
class Series:
    """One series.

    Args:
        name: its ``unique_id``.
        stamps: datetime64[us], or int64, (time,), sorted and distinct.
        values: targets, float64 (time, channels), NaN where missing.
        historic: covariates known until now, float64 (time, columns).
        future: covariates known in advance, float64 (time, columns).
        static: properties of the series, float64 (columns,); categories are indices into their sorted names.
    """

    name: str
    stamps: np.ndarray
    values: np.ndarray
    historic: np.ndarray
    future: np.ndarray
    static: np.ndarray

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def observed(self) -> np.ndarray:
        """True where a value was observed, bool (time, channels)."""
        return ~np.isnan(self.values)

    def rows(self, begin: int, end: int) -> Series:
        """The part of rows ``begin`` to ``end``, without the latter."""
        return dataclasses.replace(
            self,
            stamps=self.stamps[begin:end],
            values=self.values[begin:end],
            historic=self.historic[begin:end],
            future=self.future[begin:end],
        )


def make_series(name: str, stamps: np.ndarray, values: np.ndarray) -> Series:
    """Return a series without covariates; ``values`` (time,) or (time, channels)."""
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    empty = np.empty((len(values), 0))
    return Series(name, stamps, values, empty, empty, np.empty(0))


@dataclass(frozen=True)
class QualityReport:
    """What the policies did to the data, counted."""

    filled: int = 0
    masked: int = 0
    inserted: int = 0
    duplicates: int = 0
    resampled: int = 0
    dropped_series: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{self.inserted} steps missing" if self.inserted else "",
            f"{self.filled} values filled" if self.filled else "",
            f"{self.masked} values masked" if self.masked else "",
            f"{self.duplicates} duplicates merged" if self.duplicates else "",
            f"{self.resampled} series resampled" if self.resampled else "",
            f"{len(self.dropped_series)} series dropped" if self.dropped_series else "",
        ]
        return ", ".join(part for part in parts if part) or "complete and regular"


@dataclass(frozen=True)
class SeriesSet(Sequence[Series]):
    """Series that share a frequency and columns.

    Args:
        series: in the order of their names' first appearance.
        frequency: None where stamps are irregular and were kept so.
        channels: names of the target columns.
        historic_names: of covariates known until now.
        future_names: of covariates known in advance.
        static_names: of static properties.
        categories: names of the categories of each static property that is one.
        timezone: of the file's stamps, which are kept in UTC; None where they have none.
        source: file or kind of table, for messages.
        report: what the policies did.
        season_length: steps per season where the data set says so; that of the frequency where None.
        horizon: steps to forecast where the data set says so.
    """

    series: tuple[Series, ...]
    frequency: Frequency | None
    channels: tuple[str, ...] = ("y",)
    historic_names: tuple[str, ...] = ()
    future_names: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    timezone: str | None = None
    source: str = "table"
    report: QualityReport = QualityReport()
    season_length: int | None = None
    horizon: int | None = None

    @property
    def season(self) -> int:
        """Steps per season; 1 where nothing is known."""
        if self.season_length is not None:
            return self.season_length
        return 1 if self.frequency is None else self.frequency.season_length

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, index: int | str) -> Series:  # type: ignore[override]
        """A series by position or by name.

        Raises:
            UserError: no series of that name.
        """
        if isinstance(index, str):
            for series in self.series:
                if series.name == index:
                    return series
            raise UserError(f"{self.source}: no series {index!r} ({nearest(index, self.names)})")
        return self.series[index]

    def __iter__(self) -> Iterator[Series]:
        return iter(self.series)

    @property
    def names(self) -> list[str]:
        """Names of the series."""
        return [series.name for series in self.series]

    def replace(self, series: Sequence[Series], **changes: object) -> SeriesSet:
        """The same columns with other series."""
        return dataclasses.replace(self, series=tuple(series), **changes)  # type: ignore[arg-type]

    def univariate(self) -> SeriesSet:
        """One series for each channel, named ``series/channel`` (``channel`` alone where there is one series)."""
        if len(self.channels) == 1:
            return self
        series = [
            dataclasses.replace(
                one,
                name=channel if len(self) == 1 else f"{one.name}/{channel}",
                values=one.values[:, index : index + 1],
            )
            for one in self.series
            for index, channel in enumerate(self.channels)
        ]
        return self.replace(series, channels=("y",))

    def require_length(self, rows: int, why: str, policy: str = "error") -> SeriesSet:
        """Return the series of at least ``rows`` rows.

        Args:
            rows: at least.
            why: for the message, such as ``"lookback 96 + horizon 24"``.
            policy: of shorter ones: ``"error"``; ``"drop"``, counted in the report; ``"keep"``, for models that pad.

        Raises:
            UserError: a shorter series with ``"error"``, or none left.
        """
        if policy not in ("error", "drop", "keep"):
            raise UserError(f"short_series={policy!r} is unknown; use error, drop or keep")
        short = [series for series in self.series if len(series) < rows]
        if not short or policy == "keep":
            return self
        if policy == "error":
            raise UserError(
                f"{self.source}: series {short[0].name!r} has {len(short[0])} rows, {why} needs {rows} "
                f"({len(short)} of {len(self)} series are too short); shorten them, or set short_series to drop or keep"
            )
        kept = [series for series in self.series if len(series) >= rows]
        if not kept:
            raise UserError(
                f"{self.source}: no series has the {rows} rows that {why} needs; shorten lookback or horizon"
            )
        dropped = (*self.report.dropped_series, *(series.name for series in short))
        return self.replace(kept, report=dataclasses.replace(self.report, dropped_series=dropped))
