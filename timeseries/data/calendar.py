"""Calendar features: the time of the day, week and year as numbers, known in advance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...core.errors import UserError, nearest
from ..frequency import Frequency, parse_frequency

#: Whether there are calendar features, or the names of those that there are.
Calendar = bool | list[str]

#: Feature -> (largest value, how it is read).
_FEATURES = {
    "second": (59, lambda dates: dates.second),
    "minute": (59, lambda dates: dates.minute),
    "hour": (23, lambda dates: dates.hour),
    "day_of_week": (6, lambda dates: dates.day_of_week),
    "day_of_month": (30, lambda dates: dates.day - 1),
    "day_of_year": (365, lambda dates: dates.day_of_year - 1),
    "week_of_year": (52, lambda dates: dates.isocalendar().week.to_numpy(dtype=np.int64) - 1),
    "month": (11, lambda dates: dates.month - 1),
}
_DAY = ("day_of_week", "day_of_month", "day_of_year")
_BY_UNIT = {
    "h": ("hour", *_DAY),
    "min": ("minute", "hour", *_DAY),
    **dict.fromkeys(("s", "ms", "us"), ("second", "minute", "hour", *_DAY)),
    "D": _DAY,
    "B": _DAY,
    "W": ("day_of_month", "week_of_year"),
}


def calendar_names(frequency: str | Frequency) -> tuple[str, ...]:
    """Names of the features of a frequency: those that change from step to step; only ``month`` above a week.

    Raises:
        UserError: integer stamps, which have no calendar.
    """
    chosen = parse_frequency(frequency)
    if chosen.is_integer:
        raise UserError("stamps that are whole numbers have no calendar; leave calendar features out, or give dates")
    return _BY_UNIT.get(chosen.offset.rule_code.partition("-")[0], ("month",))


def chosen_names(calendar: bool | Sequence[str], frequency: str | Frequency) -> tuple[str, ...]:
    """Return the features that a setting means: all of the frequency's (True), none (False), or those that it names.

    Raises:
        UserError: a name that is no feature of the frequency, or integer stamps.
    """
    if isinstance(calendar, bool):
        return calendar_names(frequency) if calendar else ()
    known = calendar_names(frequency) if calendar else ()
    for name in calendar:
        if name not in known:
            raise UserError(f"calendar: {name!r} is no feature of steps of {frequency} ({nearest(name, known)})")
    return tuple(calendar)


def calendar_features(
    stamps: np.ndarray, frequency: str | Frequency, calendar: bool | Sequence[str] = True
) -> np.ndarray:
    """Return the features of `chosen_names`, each in [-0.5, 0.5], float64 (time, features).

    The numbers of the Informer family (Zhou et al. 2021): value / largest value - 0.5.

    Args:
        stamps: datetime64 (time,).
        frequency: of them.
        calendar: which; all of the frequency's where True.

    Raises:
        UserError: integer stamps, or an unknown name.
    """
    names = chosen_names(calendar, frequency)
    if not names:
        return np.empty((len(stamps), 0))
    dates = pd.DatetimeIndex(stamps)
    columns = [np.asarray(_FEATURES[name][1](dates)) / _FEATURES[name][0] - 0.5 for name in names]
    return np.stack(columns, 1)


def calendar_integers(stamps: np.ndarray, quarter_hours: bool = False) -> np.ndarray:
    """Return month, day, weekday (Monday 0) and hour, and the quarter of the hour if asked for, int64 (time, 4 or 5).

    The family's other encoding (``timeenc=0``), for embedding tables.
    """
    dates = pd.DatetimeIndex(stamps)
    columns = [dates.month, dates.day, dates.day_of_week, dates.hour]
    if quarter_hours:
        columns.append(dates.minute // 15)
    return np.stack([np.asarray(column, dtype=np.int64) for column in columns], 1)
