"""Covariates over the horizon: exactly one row for each series and step, checked before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ...core.errors import UserError
from .frames import numbers, read_table, require_columns, stamps
from .long_format import Columns
from .series import SeriesSet


def future_stamps(data: SeriesSet, horizon: int) -> dict[str, np.ndarray]:
    """Return the ``horizon`` stamps that follow each series, by name.

    Raises:
        UserError: the set has no frequency, or horizon below 1.
    """
    if horizon < 1:
        raise UserError(f"horizon={horizon} must be at least 1")
    if data.frequency is None:
        raise UserError(f"{data.source}: irregular series have no next stamp; give frequency")
    return {series.name: data.frequency.after(series.stamps[-1], horizon) for series in data}


def future_frame(data: SeriesSet, horizon: int, columns: Columns = Columns()) -> pd.DataFrame:  # noqa: B008
    """Return the table to fill in: name and stamp of each step, and an empty column for each covariate."""
    parts = [
        pd.DataFrame({columns.id: name, columns.time: steps}) for name, steps in future_stamps(data, horizon).items()
    ]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(**dict.fromkeys(data.future_names, np.nan))


def read_future(
    source: Any,
    data: SeriesSet,
    horizon: int,
    columns: Columns = Columns(),  # noqa: B008
    date_format: str | None = None,
) -> dict[str, np.ndarray]:
    """Return the covariates over the horizon of each series, float64 (horizon, covariates), by name.

    Args:
        source: path or data frame with one row for each series and step; the name may be left out with one series. None
            where there are no such covariates.
        data: the series.
        horizon: steps.
        columns: names of the columns of series and stamp.
        date_format: of dates that are not ISO 8601.

    Raises:
        UserError: rows missing (lists them), more than once, or beyond the horizon; an empty cell.
    """
    steps = future_stamps(data, horizon)
    if not data.future_names:
        return {name: np.empty((horizon, 0)) for name in steps}
    if source is None:
        raise UserError(
            f"{data.source}: the covariates {', '.join(data.future_names)} are needed for the next {horizon} steps; "
            f"give them as future (future_frame makes the table to fill in)"
        )
    frame, name = read_table(source, text_columns=(columns.id, columns.time) if date_format else (columns.id,))
    if columns.id not in frame.columns and len(data) == 1:
        frame = frame.assign(**{columns.id: data[0].name})
    require_columns(frame, (columns.id, columns.time, *data.future_names), name)
    times, _ = stamps(frame, columns.time, name, columns.id, date_format)
    values = np.stack([numbers(frame, column, name, columns.id) for column in data.future_names], 1)
    place = {}
    ids = frame[columns.id].astype(str).to_numpy()
    for row, key in enumerate(zip(ids.tolist(), times.tolist(), strict=True)):
        if key in place:
            raise UserError(
                f"{name}: series {key[0]!r}, row {row + 1}: the stamp {key[1]} is there already; remove one"
            )
        place[key] = row
    result: dict[str, np.ndarray] = {}
    missing: list[str] = []
    for one, wanted in steps.items():
        rows = [place.pop((one, stamp), -1) for stamp in wanted.tolist()]
        missing += [f"{one} {stamp}" for stamp, row in zip(wanted.tolist(), rows, strict=True) if row < 0]
        result[one] = values[rows]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise UserError(f"{name}: no row for {', '.join(missing[:10])}{more}; add them")
    if place:
        key, row = next(iter(place.items()))
        raise UserError(
            f"{name}: series {key[0]!r}, row {row + 1}: {key[1]} is not among the next {horizon} steps "
            f"({len(place)} such rows); remove them"
        )
    for one, covariates in result.items():
        empty = np.argwhere(np.isnan(covariates))
        if len(empty):
            step, column = empty[0].tolist()
            raise UserError(
                f"{name}: series {one!r}: {data.future_names[column]} is missing at {steps[one][step]}; fill it in"
            )
    return result
