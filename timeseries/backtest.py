"""Rolling-origin evaluation: forecast again and again from the past, and compare with what followed.

Window i of w ends ``(w - 1 - i) · step`` rows before the end of each series. A forecaster is given only rows before its
cutoff, so whatever it computes (scales, imputed values, chosen penalties) cannot know the future.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core.errors import UserError
from .data.long_format import Columns
from .data.series import SeriesSet
from .forecasts import Forecaster, forecast_table, interval_levels


@dataclass(frozen=True)
class Window:
    """One origin.

    Args:
        number: from 0, the earliest.
        refit: whether forecasters are to be fitted here.
        fit_data: what they may be fitted on.
        history: what they may read to forecast.
        actual: the ``horizon`` rows that followed.
    """

    number: int
    refit: bool
    fit_data: SeriesSet
    history: SeriesSet
    actual: SeriesSet


@dataclass(frozen=True)
class RollingOrigin:
    """Where the origins are and what may be seen from them.

    Args:
        horizon: steps to forecast.
        windows: number of origins.
        step: rows between them; the horizon where None, so that windows do not overlap.
        refit: False fits at the first origin alone, True at each, k at every k-th.
        context: rows of history kept (sliding); all (expanding) where None.
        embargo: rows before the cutoff that are kept from fitting, for covariates that leak.
        short_series: ``error`` or ``drop`` those that are too short for the first window.

    Raises:
        UserError: a number out of range.
    """

    horizon: int
    windows: int = 1
    step: int | None = None
    refit: bool | int = False
    context: int | None = None
    embargo: int = 0
    short_series: str = "error"

    def __post_init__(self) -> None:
        for name in ("horizon", "windows", "step", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1")
        if self.embargo < 0 or self.refit < 0:
            raise UserError(f"embargo={self.embargo} and refit={self.refit} must not be negative")

    @classmethod
    def over(cls, test_rows: int, horizon: int, step: int | None = None, **options: object) -> RollingOrigin:
        """Return the windows that together cover the last ``test_rows`` rows exactly.

        Raises:
            UserError: they do not divide so.
        """
        stride = horizon if step is None else step
        if test_rows < horizon or (test_rows - horizon) % stride:
            raise UserError(f"test_rows={test_rows} must be the horizon {horizon} and a multiple of the step {stride}")
        return cls(horizon, (test_rows - horizon) // stride + 1, step, **options)  # type: ignore[arg-type]

    @property
    def stride(self) -> int:
        """Rows between origins."""
        return self.horizon if self.step is None else self.step

    def cutoffs(self, rows: int) -> list[int]:
        """Return the first row to forecast of each window, for a series of ``rows`` rows."""
        return [rows - self.horizon - (self.windows - 1 - number) * self.stride for number in range(self.windows)]

    def fits_at(self, number: int) -> bool:
        """Whether forecasters are fitted at this window."""
        if number == 0 or self.refit is False or self.refit == 0:
            return number == 0
        return number % int(self.refit) == 0

    def split(self, data: SeriesSet, history_rows: int = 1) -> Iterator[Window]:
        """Go through the windows, the earliest first.

        Args:
            data: at least ``history_rows`` rows must lie before the first cutoff of each series.
            history_rows: that forecasters need.

        Raises:
            UserError: a series is too short.
        """
        needed = self.horizon + (self.windows - 1) * self.stride + self.embargo + history_rows
        why = f"{self.windows} windows of horizon {self.horizon} and step {self.stride}"
        if self.short_series == "keep":
            raise UserError("short_series=keep cannot be back-tested; use error or drop")
        data = data.require_length(needed, why, self.short_series)
        for number in range(self.windows):
            history, fitted, actual = [], [], []
            for series in data:
                cutoff = self.cutoffs(len(series))[number]
                end = cutoff - self.embargo
                begin = 0 if self.context is None else max(0, cutoff - self.context)
                begin_fit = 0 if self.context is None else max(0, end - self.context)
                history.append(series.rows(begin, cutoff))
                fitted.append(series.rows(begin_fit, end))
                actual.append(series.rows(cutoff, cutoff + self.horizon))
            yield Window(
                number, self.fits_at(number), data.replace(fitted), data.replace(history), data.replace(actual)
            )


def cross_validation(
    data: SeriesSet,
    forecasters: Sequence[Forecaster],
    origins: RollingOrigin,
    *,
    level: Sequence[float] = (),
    history_rows: int = 1,
    columns: Columns = Columns(),  # noqa: B008  # frozen
) -> pd.DataFrame:
    """Back-test forecasters.

    Returns one row for each series, window and step: series, stamp, ``cutoff`` (the last stamp seen), target, and for
    each forecaster the columns of `forecast_table`. Several channels become a series each.

    Raises:
        UserError: a series is too short, two forecasters share a name, or one returns the wrong steps.
    """
    names = [forecaster.name for forecaster in forecasters]
    if len(set(names)) < len(names):
        raise UserError(f"forecasters need names of their own; got {', '.join(names)}")
    data = data.univariate()
    levels = interval_levels(level) if level else ()
    parts = []
    for window in origins.split(data, history_rows):
        table = pd.concat(
            [
                pd.DataFrame(
                    {
                        columns.id: actual.name,
                        columns.time: actual.stamps,
                        "cutoff": seen.stamps[-1],
                        "step": np.arange(1, origins.horizon + 1),
                        columns.target: actual.values[:, 0],
                    }
                )
                for actual, seen in zip(window.actual, window.history, strict=True)
            ],
            ignore_index=True,
        )
        future = {actual.name: actual.future for actual in window.actual} if data.future_names else None
        for forecaster in forecasters:
            if window.refit:
                forecaster.fit(window.fit_data)
            forecasts = forecaster.predict(window.history, origins.horizon, levels, future)
            found = forecast_table(forecasts, forecaster.name, level=level, columns=columns)
            same = len(found) == len(table) and (found[columns.time].to_numpy() == table[columns.time].to_numpy()).all()
            if not same or (found[columns.id].to_numpy() != table[columns.id].to_numpy()).any():
                raise UserError(f"{forecaster.name} did not forecast the {origins.horizon} steps after each series")
            table = table.join(found.drop(columns=[columns.id, columns.time]))
        parts.append(table.assign(window=window.number))
    return pd.concat(parts, ignore_index=True)
