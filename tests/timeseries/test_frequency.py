"""Frequencies: old and new spellings, inference with and without gaps, grids, season lengths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from longscan.core.errors import UserError
from longscan.timeseries.frequency import Frequency, infer_frequency, off_grid, parse_frequency


def dates(*args: object, **kwargs: object) -> np.ndarray:
    return np.asarray(pd.date_range(*args, **kwargs)).astype("datetime64[us]")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "old, new",
    [("H", "h"), ("15T", "15min"), ("S", "s"), ("L", "ms"), ("M", "ME"), ("Q", "QE-DEC"), ("Q-NOV", "QE-NOV"),
     ("A", "YE-DEC"), ("Y", "YE-DEC"), ("AS", "YS-JAN"), ("BM", "BME"), ("MS", "MS"), ("ms", "ms"), ("d", "D"),
     ("W", "W-SUN"), ("W-MON", "W-MON"), ("hourly", "h"), ("10_minutes", "10min"), ("half_hourly", "30min")],
)  # fmt: skip
def test_old_and_new_spellings_are_one(old: str, new: str) -> None:
    assert parse_frequency(old).value == new
    assert parse_frequency(new).value == new


@pytest.mark.parametrize("text", ["m", "fortnight", "", "-1h", 0])
def test_unknown_spellings_are_refused(text: str | int) -> None:
    with pytest.raises(UserError, match=r"frequency .* (is unknown; use an alias|must be at least 1)"):
        parse_frequency(text)


@pytest.mark.parametrize("alias", ["h", "15min", "D", "B", "W-WED", "MS", "ME", "QS-FEB", "YS-JAN", "s", "250ms", "2D"])
def test_inference_reads_a_regular_series_and_one_with_gaps(alias: str) -> None:
    stamps = dates("2020-01-01", periods=60, freq=alias)
    found = infer_frequency(stamps)
    assert found is not None
    assert np.array_equal(found.grid(stamps[0], stamps[-1]), stamps)
    gapped = infer_frequency(np.delete(stamps, [7, 8, 30]))
    assert gapped is not None
    assert np.array_equal(gapped.grid(stamps[0], stamps[-1]), stamps)


@pytest.mark.parametrize(
    "alias, season", [("h", 24), ("15min", 96), ("30min", 48), ("s", 3600), ("2h", 12), ("250ms", 1), ("2D", 1)]
)
def test_a_gap_changes_neither_the_spelling_nor_the_season(alias: str, season: int) -> None:
    stamps = dates("2020-01-01", periods=60, freq=alias)
    found = infer_frequency(np.delete(stamps, [7, 8, 30]))
    assert found == infer_frequency(stamps) == Frequency(alias)
    assert found.season_length == season


def test_inference_refuses_irregular_and_short_series() -> None:
    stamps = dates("2020-01-01", periods=20, freq="h")
    stamps[5] += np.timedelta64(7, "m")
    assert infer_frequency(stamps) is None
    assert infer_frequency(stamps[:2]) is None
    assert off_grid(stamps, Frequency("h")).tolist() == [5]


def test_integer_stamps() -> None:
    assert infer_frequency(np.array([3, 5, 7, 11])) == Frequency(2)
    assert infer_frequency(np.array([3, 5, 7, 10])) is None
    assert Frequency(2).after(11, 3).tolist() == [13, 15, 17]


def test_stamps_that_follow() -> None:
    assert Frequency("ME").after(np.datetime64("2024-01-31"), 2).astype("datetime64[D]").astype(str).tolist() == [
        "2024-02-29",
        "2024-03-31",
    ]
    # A last stamp that is itself not on the calendar: the next dates that are.
    assert Frequency("B").after(np.datetime64("2024-06-01"), 2).astype("datetime64[D]").astype(str).tolist() == [
        "2024-06-03",
        "2024-06-04",
    ]


@pytest.mark.parametrize(
    "alias, season",
    [("h", 24), ("15min", 96), ("30min", 48), ("10s", 360), ("7h", 1), ("D", 1), ("W-TUE", 1), ("MS", 12), ("ME", 12),
     ("QE", 4), ("B", 5), ("YE", 1), (1, 1), ("2h", 12)],
)  # fmt: skip
def test_season_lengths_are_those_of_gift_eval(alias: str | int, season: int) -> None:
    assert parse_frequency(alias).season_length == season
