"""Wide tables: a ``date`` column and one column for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.errors import UserError
from ..frequency import Frequency
from .frames import numbers, read_table, require_columns, stamps
from .long_format import assemble
from .regularity import Policy, merge_duplicates
from .series import QualityReport, Series, SeriesSet


def read_wide(
    source: Any,
    *,
    frequency: str | int | Frequency | None = None,
    time: str = "date",
    channels: Sequence[str] | None = None,
    historic: Sequence[str] = (),
    future: Sequence[str] = (),
    policy: Policy = Policy(),  # noqa: B008  # frozen
    date_format: str | None = None,
    name: str = "series",
) -> SeriesSet:
    """Read a wide table as one series of several channels; ``.univariate()`` makes one series of each.

    Args:
        source: path (CSV, TSV, Parquet) or pandas, polars or pyarrow table.
        frequency: inferred where None.
        time: column of stamps.
        channels: columns of values; all but ``time`` and covariates where None.
        historic: covariates known until now.
        future: covariates known in advance.
        policy: about imperfect data.
        date_format: of dates that are not ISO 8601.
        name: of the series.

    Raises:
        UserError: anything wrong with the table; names the row, counted from 1 after the header.
    """
    frame, origin = read_table(source, text_columns=(time,) if date_format else ())
    require_columns(frame, (time, *(channels or ()), *historic, *future), origin, "name the column of dates with time")
    others = {time, *historic, *future}
    names = tuple(channels) if channels is not None else tuple(str(c) for c in frame.columns if c not in others)
    if not names:
        raise UserError(f"{origin}: no column of values beside {time!r}; add at least one")
    times, timezone = stamps(frame, time, origin, None, date_format)
    values, past, known = (
        np.stack([numbers(frame, column, origin) for column in chosen], 1) if chosen else np.empty((len(frame), 0))
        for chosen in (names, tuple(historic), tuple(future))
    )
    for covariates, titles in ((past, historic), (known, future)):
        missing = np.argwhere(np.isnan(covariates))
        if len(missing):
            row, column = missing[0].tolist()
            raise UserError(
                f"{origin}: row {row + 1}: covariate {titles[column]} is missing; covariates must be complete"
            )
    series = Series(name, times, values, past, known, np.empty(0))
    series, merged = merge_duplicates(series, policy, np.arange(1, len(frame) + 1), origin)
    return assemble(
        [series],
        frequency,
        policy,
        origin,
        QualityReport(duplicates=merged),
        channels=names,
        historic_names=tuple(historic),
        future_names=tuple(future),
        timezone=timezone,
    )
