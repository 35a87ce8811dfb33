"""Long tables, one row per series and stamp (``unique_id, ds, y`` and covariates), to series."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...core.errors import UserError
from ..frequency import Frequency, common_frequency, parse_frequency
from .frames import numbers, read_table, require_columns, stamps, where
from .regularity import Policy, merge_duplicates, regularize
from .series import QualityReport, Series, SeriesSet


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which column is what.

    Args:
        id: name of the series.
        time: stamp.
        target: values.
        historic: covariates known until now.
        future: covariates known in advance, such as prices and holidays.
        static: properties of a series, numbers or categories, from the static table or from columns of the table that
            are the same in all rows of a series.
    """

    id: str = "unique_id"
    time: str = "ds"
    target: str = "y"
    historic: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()


def read_long(
    source: Any,
    *,
    frequency: str | int | Frequency | None = None,
    columns: Columns = Columns(),  # frozen
    policy: Policy = Policy(),  # noqa: B008  # frozen
    static: Any = None,
    date_format: str | None = None,
) -> SeriesSet:
    """Read a long table.

    A column ``available_mask`` with 0 marks a value as missing, whatever it holds.

    Args:
        source: path (CSV, TSV, Parquet) or pandas, polars or pyarrow table.
        frequency: inferred where None.
        columns: their names.
        policy: about imperfect data.
        static: table with one row per series, path or data frame.
        date_format: of dates that are not ISO 8601.

    Raises:
        UserError: anything wrong with the table; names the series and the row, counted from 1 after the header.
    """
    frame, name = read_table(source, text_columns=(columns.id, columns.time) if date_format else (columns.id,))
    in_table = columns.static if static is None else ()
    wanted = (columns.id, columns.time, columns.target, *columns.historic, *columns.future, *in_table)
    require_columns(frame, wanted, name, "name them with columns")
    times, timezone = stamps(frame, columns.time, name, columns.id, date_format)
    values = numbers(frame, columns.target, name, columns.id)
    if "available_mask" in frame.columns:
        values = np.where(numbers(frame, "available_mask", name, columns.id) == 0, np.nan, values)
    historic, future = (
        np.stack([numbers(frame, column, name, columns.id) for column in names], 1)
        if names
        else np.empty((len(frame), 0))
        for names in (columns.historic, columns.future)
    )
    for covariates, names in ((historic, columns.historic), (future, columns.future)):
        _require_complete(covariates, names, frame, name, columns.id)
    ids = _ids(frame, columns.id, name)
    codes, names_ = pd.factorize(ids)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(names_) + 1))
    found: list[Series] = []
    merged = 0
    for index, one in enumerate(names_):
        rows = order[bounds[index] : bounds[index + 1]]
        series = Series(str(one), times[rows], values[rows, None], historic[rows], future[rows], np.empty(0))
        series, count = merge_duplicates(series, policy, rows + 1, name)
        merged += count
        found.append(series)
    table = frame if static is None else read_table(static, text_columns=(columns.id,))[0]
    properties, categories = _static(table, found, columns, name if static is None else f"{name} (static table)")
    found = [dataclasses.replace(one, static=row) for one, row in zip(found, properties, strict=True)]
    return assemble(
        found,
        frequency,
        policy,
        name,
        QualityReport(duplicates=merged),
        channels=(columns.target,),
        historic_names=columns.historic,
        future_names=columns.future,
        static_names=columns.static,
        categories=categories,
        timezone=timezone,
    )


def assemble(
    found: Sequence[Series],
    frequency: str | int | Frequency | None,
    policy: Policy,
    source: str,
    report: QualityReport = QualityReport(),  # noqa: B008  # frozen
    **columns: Any,
) -> SeriesSet:
    """Find the frequency, put every series on its grid as ``policy`` says, and make a set of them.

    Raises:
        UserError: no frequency can be inferred, or a policy of ``error`` met what it is about.
    """
    if policy.irregular == "keep" and frequency is None:
        return SeriesSet(tuple(found), None, source=source, report=report, **columns)
    if frequency is None:
        chosen = common_frequency(one.stamps for one in found)
        if chosen is None:
            longest = max(found, key=len)
            why = f"the longest series, {longest.name!r}, has {len(longest)} stamps"
            raise UserError(
                f"{source}: no frequency can be inferred ({why}{', at irregular steps' if len(longest) > 2 else ''}); "
                f"give frequency, such as h, D or MS, or set irregular to keep"
            )
    else:
        chosen = parse_frequency(frequency)
    dates = found[0].stamps.dtype.kind == "M"
    if dates == chosen.is_integer:
        kind = "dates" if dates else "whole numbers"
        raise UserError(f"{source}: the stamps are {kind}, but the frequency is {chosen}; give one that fits them")
    regular = []
    for series in found:
        if policy.irregular == "keep":
            regular.append(series)
            continue
        series, own = regularize(series, chosen, policy, source)
        regular.append(series)
        report = dataclasses.replace(
            report,
            filled=report.filled + own.filled,
            masked=report.masked + own.masked,
            inserted=report.inserted + own.inserted,
            resampled=report.resampled + own.resampled,
        )
    return SeriesSet(tuple(regular), chosen, source=source, report=report, **columns)


def _ids(frame: pd.DataFrame, column: str, source: str) -> np.ndarray:
    cells = frame[column]
    missing = np.flatnonzero((cells.isna() | (cells.astype(str) == "")).to_numpy())
    if len(missing):
        raise UserError(f"{where(frame, int(missing[0]), source)}: {column} is empty; name the series")
    return cells.astype(str).to_numpy(dtype=object)


def _require_complete(
    values: np.ndarray, names: Sequence[str], frame: pd.DataFrame, source: str, id_column: str
) -> None:
    missing = np.argwhere(np.isnan(values))
    if len(missing):
        row, column = missing[0].tolist()
        raise UserError(
            f"{where(frame, row, source, id_column)}: covariate {names[column]} is missing; covariates must be complete"
        )


def _static(
    table: pd.DataFrame, series: Sequence[Series], columns: Columns, source: str
) -> tuple[np.ndarray, dict[str, tuple[str, ...]]]:
    """Return the static properties float64 (series, columns), and the categories' names."""
    result = np.empty((len(series), len(columns.static)))
    categories: dict[str, tuple[str, ...]] = {}
    if not columns.static:
        return result, categories
    require_columns(table, (columns.id, *columns.static), source)
    groups = table.assign(**{columns.id: table[columns.id].astype(str)}).groupby(columns.id, sort=False)
    varying = groups[list(columns.static)].nunique(dropna=False) > 1
    for column in columns.static:
        if varying[column].any():
            name = varying.index[varying[column].to_numpy()][0]
            raise UserError(f"{source}: series {name!r}: static column {column!r} changes within it; make it historic")
    first = groups[list(columns.static)].first()
    for one in series:
        if one.name not in first.index:
            raise UserError(f"{source}: no row for series {one.name!r}; add one")
    first = first.loc[[one.name for one in series]].reset_index()
    for index, column in enumerate(columns.static):
        if first[column].isna().any():
            name = first[columns.id][first[column].isna()].iloc[0]
            raise UserError(f"{source}: series {name!r}: static column {column!r} is empty; fill it in")
        if pd.api.types.is_numeric_dtype(first[column]):
            result[:, index] = numbers(first, column, source, columns.id)
        else:
            codes, names = pd.factorize(first[column].astype(str), sort=True)
            result[:, index], categories[column] = codes, tuple(names)
    return result, categories
