"""Files of the M4 competition: one row per series, its name and then its values."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.files import require_file
from ..frequency import Frequency
from .series import Series, SeriesSet, make_series

#: Steps per season and steps to forecast of each group (Makridakis et al. 2020): daily and weekly count as unseasonal.
GROUPS = {
    "Yearly": (1, 6),
    "Quarterly": (4, 8),
    "Monthly": (12, 18),
    "Weekly": (1, 13),
    "Daily": (1, 14),
    "Hourly": (24, 48),
}


def read_m4(
    train: str | os.PathLike[str], test: str | os.PathLike[str] | None = None, group: str | None = None
) -> tuple[SeriesSet, SeriesSet | None]:
    """Return the training series and, if asked for, what followed each, with stamps counted from 1.

    Args:
        train: such as ``Hourly-train.csv``; first column the name, then values; rows may end in empty cells.
        test: such as ``Hourly-test.csv``, paired by name.
        group: of `GROUPS`; from the file name where None.

    Raises:
        UserError: an unreadable cell (names the series and the column), an unknown group, or series without a pair.
    """
    rows = _rows(require_file(train))
    if group is None:
        group = next((name for name in GROUPS if Path(train).name.lower().startswith(name.lower())), None)
        if group is None:
            raise UserError(f"{train}: no group of M4 in the name; give group, one of {', '.join(GROUPS)}")
    if group not in GROUPS:
        raise UserError(f"group={group!r} is unknown; use one of {', '.join(GROUPS)}")
    season, horizon = GROUPS[group]
    first = [make_series(name, np.arange(1, len(values) + 1), values) for name, values in rows.items()]
    known = SeriesSet(tuple(first), Frequency(1), source=str(train), season_length=season, horizon=horizon)
    if test is None:
        return known, None
    later = _rows(require_file(test))
    if unpaired := sorted(rows.keys() ^ later.keys()):
        raise UserError(f"{test}: series {unpaired[0]!r} is in only one of the two files; they do not belong together")
    second: list[Series] = []
    for name, values in rows.items():
        own = later[name]
        second.append(make_series(name, len(values) + np.arange(1, len(own) + 1), own))
    return known, known.replace(second, source=str(test))


def _rows(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        next(reader, None)
        for number, cells in enumerate(reader, start=1):
            if not cells:
                continue
            name, texts = cells[0], cells[1:]
            while texts and not texts[-1].strip():
                texts.pop()
            if name in found:
                raise UserError(f"{path}: row {number}: series {name!r} occurs twice; keep one")
            if not texts:
                raise UserError(f"{path}: row {number}: series {name!r} has no values; remove it")
            values = np.empty(len(texts))
            for index, text in enumerate(texts):
                try:
                    values[index] = float(text)
                except ValueError:
                    values[index] = np.nan
                if not np.isfinite(values[index]):
                    raise UserError(f"{path}: series {name!r}, row {number}, column {index + 2}: {text!r} is no number")
            found[name] = values
    if not found:
        raise UserError(f"{path}: it has no rows; give at least one series")
    return found
