"""Stamps put in order by an explicit policy: duplicates, irregular steps, gaps and missing values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from ...core.errors import UserError, nearest
from ..frequency import MOST_STEPS, Frequency, off_grid
from .series import QualityReport, Series

Duplicates = Literal["error", "first", "last", "mean"]
Irregular = Literal["error", "resample", "keep"]
Gaps = Literal["error", "fill", "mask"]
Missing = Literal["mask", "fill", "error"]

_NAMED_FOR_THE_END = ("W", "ME", "QE", "YE", "BME", "BQE", "BYE")


@dataclass(frozen=True)
class Policy:
    """What is done about imperfect data; nothing is guessed.

    Args:
        duplicates: of one stamp in one series: ``error``; keep the ``first`` or ``last`` row; their ``mean``.
        irregular: stamps off the grid: ``error``; ``resample`` to the mean of each step; ``keep`` them as they are, for
            models that take the time between observations.
        gaps: steps without a row: ``error``; ``fill`` with the last value before, never with a later one; ``mask``.
        missing: empty cells of a row that is there: ``mask``, ``fill`` as above, or ``error``.

    Covariates in a gap repeat the last known ones under both ``fill`` and ``mask``.
    """

    duplicates: Duplicates = "error"
    irregular: Irregular = "error"
    gaps: Gaps = "error"
    missing: Missing = "mask"

    def __post_init__(self) -> None:
        choices = {"duplicates": Duplicates, "irregular": Irregular, "gaps": Gaps, "missing": Missing}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise UserError(f"{name}={value!r} is unknown ({nearest(str(value), get_args(allowed))})")


def merge_duplicates(series: Series, policy: Policy, rows: np.ndarray, source: str) -> tuple[Series, int]:
    """Sort by stamp and merge equal stamps; returns how many rows went.

    Args:
        series: in the order of the table.
        policy: of duplicates.
        rows: int64 (time,), row of each in the table, counted from 1.
        source: for messages.

    Raises:
        UserError: a duplicate under ``error``; names both rows.
    """
    order = np.argsort(series.stamps, kind="stable")
    series = _take(series, order)
    same = np.flatnonzero(series.stamps[1:] == series.stamps[:-1])
    if len(same) == 0:
        return series, 0
    if policy.duplicates == "error":
        first, second = sorted((int(rows[order[same[0]]]), int(rows[order[same[0] + 1]])))
        raise UserError(
            f"{source}: series {series.name!r}, row {second}: the stamp {_shown(series.stamps[same[0]])} is there "
            f"already in row {first} ({len(same)} such); remove one, or set duplicates to first, last or mean"
        )
    stamps, begins = np.unique(series.stamps, return_index=True)
    if policy.duplicates == "mean":
        return _grouped(series, stamps, begins), len(same)
    ends = np.append(begins[1:], len(series)) - 1
    return _take(series, begins if policy.duplicates == "first" else ends), len(same)


def regularize(series: Series, frequency: Frequency, policy: Policy, source: str) -> tuple[Series, QualityReport]:
    """Put a sorted series on the grid of ``frequency``.

    Raises:
        UserError: an irregular stamp, a gap or a missing value where the policy is ``error``.
    """
    report = QualityReport()
    first, last = series.stamps[0], series.stamps[-1]
    if (steps := frequency.steps_between(first, last)) > MOST_STEPS:
        raise UserError(
            f"{source}: series {series.name!r}: its stamps, from {_shown(first)} to {_shown(last)}, span {steps:.0f} "
            f"steps of frequency {frequency}; correct the date that is out of place, or give a coarser frequency"
        )
    wrong = off_grid(series.stamps, frequency)
    if len(wrong):
        if policy.irregular == "error":
            row = int(wrong[0])
            before = f" after {_shown(series.stamps[row - 1])}" if row else ""
            raise UserError(
                f"{source}: series {series.name!r}, observation {row + 1}: the stamp {_shown(series.stamps[row])}"
                f"{before} is not on the grid of frequency {frequency} ({len(wrong)} such); correct it, give the right "
                f"frequency, or set irregular to resample or keep"
            )
        series = _resample(series, frequency)
        report = dataclasses.replace(report, resampled=1)
    grid = frequency.grid(series.stamps[0], series.stamps[-1])
    inserted = len(grid) - len(series)
    present = np.isin(grid, series.stamps)
    if inserted:
        if policy.gaps == "error":
            absent = grid[np.flatnonzero(~present)[0]]
            raise UserError(
                f"{source}: series {series.name!r}: no row for {_shown(absent)} ({inserted} of {len(grid)} steps of "
                f"frequency {frequency} are missing); add them, or set gaps to fill or mask"
            )
        series = _expand(series, grid, present)
    series, filled, masked = _fill(series, present, policy, source)
    return series, dataclasses.replace(report, inserted=inserted, filled=filled, masked=masked)


def forward_filled(values: np.ndarray) -> np.ndarray:
    """Repeat the last known value in each column, float64 (time, columns); NaN before the first one stays."""
    rows = np.where(~np.isnan(values), np.arange(len(values))[:, None], -1)
    rows = np.maximum.accumulate(rows, axis=0)
    result = np.take_along_axis(values, np.maximum(rows, 0), axis=0)
    return np.where(rows >= 0, result, np.nan)


def _fill(series: Series, present: np.ndarray, policy: Policy, source: str) -> tuple[Series, int, int]:
    values, absent = series.values, np.isnan(series.values)
    empty = absent & present[:, None]
    if policy.missing == "error" and empty.any():
        row, channel = (int(index[0]) for index in np.nonzero(empty))
        raise UserError(
            f"{source}: series {series.name!r}, {_shown(series.stamps[row])}: channel {channel + 1} is missing "
            f"({int(empty.sum())} such values); fill them in, or set missing to mask or fill"
        )
    wanted = np.zeros_like(absent)
    if policy.missing == "fill":
        wanted |= empty
    if policy.gaps == "fill":
        wanted |= absent & ~present[:, None]
    if wanted.any():
        values = np.where(wanted, forward_filled(values), values)
    masked = int(np.isnan(values).sum())
    return dataclasses.replace(series, values=values), int(absent.sum()) - masked, masked


def _expand(series: Series, grid: np.ndarray, present: np.ndarray) -> Series:
    def spread(columns: np.ndarray) -> np.ndarray:
        result = np.full((len(grid), columns.shape[1]), np.nan)
        result[present] = columns
        return result

    historic, future = (forward_filled(spread(columns)) for columns in (series.historic, series.future))
    return dataclasses.replace(series, stamps=grid, values=spread(series.values), historic=historic, future=future)


def _resample(series: Series, frequency: Frequency) -> Series:
    """Return the mean of each step. A step is named for its beginning, one of a frequency of ends (``ME``, ``W``) for
    its last day."""
    if frequency.is_integer:
        step = int(frequency.value)
        stamps = series.stamps[0] + (series.stamps - series.stamps[0]) // step * step
    else:
        first, last = (pd.Timestamp(series.stamps[index]) for index in (0, -1))
        offset = frequency.offset
        grid = pd.date_range(offset.rollback(first.normalize()), last + offset, freq=offset)
        edges = np.asarray(grid).astype("datetime64[us]")
        if offset.rule_code.partition("-")[0] in _NAMED_FOR_THE_END:
            days = series.stamps.astype("datetime64[D]").astype("datetime64[us]")
            stamps = edges[np.searchsorted(edges, days, side="left")]
        else:
            stamps = edges[np.searchsorted(edges, series.stamps, side="right") - 1]
    distinct, begins = np.unique(stamps, return_index=True)
    return _grouped(series, distinct, begins)


def _grouped(series: Series, stamps: np.ndarray, begins: np.ndarray) -> Series:
    """Return the means, over what is not missing, of the groups of rows that begin at ``begins``."""

    def means(columns: np.ndarray) -> np.ndarray:
        if columns.shape[1] == 0:
            return np.empty((len(begins), 0))
        known = ~np.isnan(columns)
        total = np.add.reduceat(np.where(known, columns, 0.0), begins, axis=0)
        count = np.add.reduceat(known.astype(np.int64), begins, axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    return dataclasses.replace(
        series, stamps=stamps, values=means(series.values), historic=means(series.historic), future=means(series.future)
    )


def _take(series: Series, rows: np.ndarray) -> Series:
    return dataclasses.replace(
        series,
        stamps=series.stamps[rows],
        values=series.values[rows],
        historic=series.historic[rows],
        future=series.future[rows],
    )


def _shown(stamp: np.generic) -> str:
    return str(pd.Timestamp(stamp)) if stamp.dtype.kind == "M" else str(stamp)
