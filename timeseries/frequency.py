"""How far apart the stamps of a series are: one canonical spelling, inference, grids and season lengths."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import UserError

#: Spellings before pandas 2.2, which later versions refuse, and lower-case ones -> today's.
OLD_ALIASES = {
    "H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns", "d": "D", "b": "B", "w": "W",
    "M": "ME", "BM": "BME", "CBM": "CBME", "SM": "SME", "Q": "QE", "BQ": "BQE",
    "A": "YE", "Y": "YE", "BA": "BYE", "BY": "BYE", "AS": "YS", "BAS": "BYS", "BH": "bh", "CBH": "cbh",
}  # fmt: skip

#: Names that data sets write in words (Monash archive, M4) -> alias.
WORDS = {
    "secondly": "s", "minutely": "min", "half_hourly": "30min", "hourly": "h", "daily": "D", "weekly": "W",
    "monthly": "MS", "quarterly": "QS", "yearly": "YS", "annually": "YS",
}  # fmt: skip

#: Steps per season by unit, as GIFT-Eval counts them; 1 for all others.
SEASONS = {"s": 3600, "min": 1440, "h": 24, "D": 1, "W": 1, "ME": 12, "MS": 12, "BME": 12, "BMS": 12,
           "QE": 4, "QS": 4, "BQE": 4, "BQS": 4, "B": 5}  # fmt: skip

#: A grid longer than this comes from a wrong date, and would fill the memory.
MOST_STEPS = 50_000_000

#: Microseconds in a unit, the largest first.
_TICKS = ((86_400_000_000, "D"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms"))

_PATTERN = re.compile(r"(\d*)([A-Za-z]+)(-[A-Za-z]{3})?")
_WORD_PATTERN = re.compile(r"(\d+)_(second|minute|hour|day|week)s?")
_WORD_UNITS = {"second": "s", "minute": "min", "hour": "h", "day": "D", "week": "W"}


@dataclass(frozen=True)
class Frequency:
    """The step between stamps: a canonical pandas alias such as ``h``, ``15min``, ``MS``; or an integer step."""

    value: str | int

    @property
    def is_integer(self) -> bool:
        """Whether stamps are whole numbers, not dates."""
        return isinstance(self.value, int)

    @property
    def offset(self) -> Any:
        """The pandas offset of a date frequency."""
        assert isinstance(self.value, str)
        return pd.tseries.frequencies.to_offset(self.value)

    @property
    def season_length(self) -> int:
        """Steps per season: of the unit (`SEASONS`), divided by the multiple where exact, else 1."""
        if isinstance(self.value, int):
            return 1
        offset = self.offset
        season = SEASONS.get(offset.rule_code.partition("-")[0], 1)
        return season // offset.n if season % offset.n == 0 else 1

    @property
    def step_size(self) -> float:
        """Length of a step, in seconds (one of them, where they vary), or the integer step."""
        if isinstance(self.value, int):
            return self.value
        start = pd.Timestamp("2000-01-01")
        return float(((start + 2 * self.offset) - (start + self.offset)).total_seconds())

    def steps_between(self, first: Any, last: Any) -> float:
        """How many steps lie between two stamps, roughly where their length varies."""
        span = int(last) - int(first) if self.is_integer else (last - first) / np.timedelta64(1, "s")
        return float(span / self.step_size)

    def grid(self, first: Any, last: Any) -> np.ndarray:
        """All stamps from ``first`` to ``last``, both included where they are on the grid that begins at ``first``.

        For calendar frequencies a ``first`` that is no such date (the 15th with ``MS``) begins at the next one.
        """
        if isinstance(self.value, int):
            return np.arange(int(first), int(last) + 1, self.value, dtype=np.int64)
        return _dates(pd.date_range(pd.Timestamp(first), pd.Timestamp(last), freq=self.offset))

    def after(self, last: Any, count: int) -> np.ndarray:
        """The ``count`` stamps that follow ``last``."""
        if isinstance(self.value, int):
            return int(last) + self.value * np.arange(1, count + 1, dtype=np.int64)
        dates = pd.date_range(pd.Timestamp(last), periods=count + 2, freq=self.offset)
        return _dates(dates[dates > pd.Timestamp(last)][:count])

    def __str__(self) -> str:
        return str(self.value)


def _dates(index: Any) -> np.ndarray:
    return np.asarray(index).astype("datetime64[us]")


def parse_frequency(text: str | int | Frequency) -> Frequency:
    """Return the frequency of an alias, old or new (``H`` and ``h``, ``15T`` and ``15min``, ``M`` and ``ME``), of a
    word (``hourly``, ``10_minutes``), or of an integer step.

    Raises:
        UserError: no such frequency, or a step below 1.
    """
    if isinstance(text, Frequency):
        return text
    if isinstance(text, (int, np.integer)):
        if text < 1:
            raise UserError(f"frequency {text}: an integer step must be at least 1")
        return Frequency(int(text))
    wanted = WORDS.get(text.lower(), text)
    if word := _WORD_PATTERN.fullmatch(wanted.lower()):
        wanted = word[1] + _WORD_UNITS[word[2]]
    if match := _PATTERN.fullmatch(wanted):
        count, unit, anchor = match.groups()
        wanted = count + OLD_ALIASES.get(unit, unit) + (anchor or "").upper()
    try:
        offset = pd.tseries.frequencies.to_offset(wanted)
    except (ValueError, TypeError):
        offset = None
    if offset is None or offset.n < 1:
        raise UserError(
            f"frequency {text!r} is unknown; use an alias such as h, 15min, D, B, W, MS, ME, QS, YE, or an integer step"
        )
    return Frequency(offset.freqstr)


def infer_frequency(stamps: np.ndarray) -> Frequency | None:
    """Return the frequency on whose grid all of ``stamps`` lie, None where there is none or fewer than 3 stamps.

    Regular stamps are read directly; with gaps, the commonest step is taken and every stamp must lie on its grid.

    Args:
        stamps: sorted and distinct, datetime64 or int64 (time,).
    """
    if len(stamps) < 3:
        return None
    if stamps.dtype.kind == "i":
        steps = np.diff(stamps)
        step = int(Counter(steps.tolist()).most_common(1)[0][0])
        return Frequency(step) if np.all(steps % step == 0) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pd.infer_freq(pd.DatetimeIndex(stamps))
    if found is not None:
        return parse_frequency(getattr(found, "freqstr", found))
    for candidate in _candidates(stamps):
        frequency = Frequency(pd.tseries.frequencies.to_offset(candidate).freqstr)
        if frequency.steps_between(stamps[0], stamps[-1]) > MOST_STEPS:
            continue
        if len(off_grid(stamps, frequency)) == 0:
            return frequency
    return None


def _candidates(stamps: np.ndarray) -> Iterable[str]:
    """Frequencies to try, from the commonest step."""
    steps = Counter(np.diff(stamps).astype("timedelta64[us]").astype(np.int64).tolist())
    step = steps.most_common(1)[0][0]
    day = 86_400_000_000
    first = pd.Timestamp(stamps[0])
    if step == 7 * day:
        yield f"W-{first.strftime('%a').upper()}"
    elif step == day:
        yield from ("B", "D")
    elif 28 * day <= step <= 31 * day:
        yield from ("MS", "ME", "BMS", "BME")
    elif 90 * day <= step <= 92 * day:
        months = ("JAN", "FEB", "MAR")
        yield from (f"{kind}-{month}" for kind in ("QS", "QE") for month in months)
    elif step in (365 * day, 366 * day):
        month = first.strftime("%b").upper()
        yield from (f"YS-{month}", f"YE-{month}")
    if step % day or step < 28 * day:
        yield _tick(step)


def _tick(microseconds: int) -> str:
    """Return the alias of a step in its largest whole unit, which is what season lengths and calendars go by."""
    for size, unit in _TICKS:
        if microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return f"{microseconds}us"


def off_grid(stamps: np.ndarray, frequency: Frequency) -> np.ndarray:
    """Return the indices of those sorted ``stamps`` that are not on the grid of ``frequency``, which begins at the
    first of them that can be on one."""
    if len(stamps) == 0:
        return np.empty(0, dtype=np.int64)
    grid = frequency.grid(stamps[0], stamps[-1])
    return np.flatnonzero(~np.isin(stamps, grid))


def common_frequency(all_stamps: Iterable[np.ndarray]) -> Frequency | None:
    """Return the frequency of most series, None where no series shows one (too short, or irregular)."""
    votes: Counter[Frequency] = Counter()
    for stamps in all_stamps:
        if (frequency := infer_frequency(stamps)) is not None:
            votes[frequency] += 1
    if not votes:
        return None
    # Of equally common ones the finest, on whose grid the others may lie as series with gaps.
    best = max(votes.values())
    tied = [frequency for frequency, count in votes.items() if count == best]
    return min(tied, key=lambda frequency: frequency.step_size)
