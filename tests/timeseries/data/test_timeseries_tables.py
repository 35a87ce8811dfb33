"""Tables of series: layouts, covariates, policies for imperfect data, and one-line errors that say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from longscan.core.errors import UserError
from longscan.timeseries.data import Columns, Policy, future_frame, read_future, read_long, read_series, read_wide


def long_table(rows: int = 6, names: tuple[str, ...] = ("a", "b")) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": pd.date_range("2024-01-01", periods=rows, freq="h"),
                "y": np.arange(rows) + 10.0 * index,
            }
        )
        for index, name in enumerate(names)
    ]
    return pd.concat(parts, ignore_index=True)


def test_long_from_frame_csv_parquet_and_arrow_are_one(tmp_path: Path) -> None:
    import pyarrow

    frame = long_table().sample(frac=1, random_state=0)
    frame["unique_id"] = frame["unique_id"].map({"a": "007", "b": "NA"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    sources: list[Any] = [frame, *(tmp_path / name for name in ("t.csv", "t.csv.gz", "t.parquet"))]
    for source in [*sources, pyarrow.Table.from_pandas(frame)]:
        data = read_series(source)
        assert sorted(data.names) == ["007", "NA"]  # neither a number nor missing
        assert data["007"].values[:, 0].tolist() == [0, 1, 2, 3, 4, 5]  # sorted
        assert data["NA"].values[:, 0].tolist() == [10, 11, 12, 13, 14, 15]
        assert str(data.frequency) == "h"
        assert data.season == 24
        assert data["NA"].stamps[1] == np.datetime64("2024-01-01T01")


def test_polars_frames_where_installed() -> None:
    polars = pytest.importorskip("polars")
    assert read_long(polars.from_pandas(long_table())).names == ["a", "b"]


def test_wide_and_its_univariate_series(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"date": pd.date_range("2024-01-01", periods=5, freq="D"), "x": range(5), "z": [1, 2, "?", 4, 5]}
    )
    frame.to_csv(tmp_path / "w.csv", index=False)
    data = read_series(tmp_path / "w.csv")
    assert data.channels == ("x", "z")
    assert data[0].observed[:, 1].tolist() == [True, True, False, True, True]
    assert data.report.masked == 1
    single = data.univariate()
    assert single.names == ["x", "z"]
    assert single["x"].values[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert read_wide(tmp_path / "w.csv", channels=["z"], future=["x"])[0].future[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_integer_stamps_and_available_mask() -> None:
    frame = long_table().assign(ds=[0, 2, 4, 6, 8, 10] * 2, available_mask=[1, 0, 1, 1, 1, 1] * 2)
    data = read_long(frame)
    assert data.frequency is not None
    assert data.frequency.value == 2
    assert data["a"].observed[:, 0].tolist() == [True, False, True, True, True, True]


def test_covariates_of_all_kinds() -> None:
    frame = long_table().assign(price=np.arange(12.0), rain=np.arange(12.0)[::-1])
    static = pd.DataFrame({"unique_id": ["b", "a"], "size": [2.5, 1.5], "city": ["Rome", "Oslo"]})
    columns = Columns(historic=("rain",), future=("price",), static=("size", "city"))
    data = read_long(frame, columns=columns, static=static)
    assert data["b"].future[:, 0].tolist() == [6, 7, 8, 9, 10, 11]
    assert data["b"].historic[:, 0].tolist() == [5, 4, 3, 2, 1, 0]
    assert data["b"].static.tolist() == [2.5, 1.0]
    assert data.categories == {"city": ("Oslo", "Rome")}


@pytest.mark.parametrize("how, expected", [("first", 1.0), ("last", 100.0), ("mean", 50.5)])
def test_duplicates(how: Any, expected: float) -> None:
    frame = pd.concat([long_table(), long_table().iloc[1:2].assign(y=100.0)])
    with pytest.raises(UserError, match=r"series 'a', row 13: the stamp 2024-01-01 01:00:00 is there already in row 2"):
        read_long(frame)
    data = read_long(frame, policy=Policy(duplicates=how))
    assert data["a"].values[:, 0].tolist() == [0, expected, 2, 3, 4, 5]
    assert data.report.duplicates == 1


def test_gaps() -> None:
    frame = long_table().drop(index=[2, 3]).assign(price=1.0)
    with pytest.raises(UserError, match=r"series 'a': no row for 2024-01-01 02:00:00 \(2 of 6 steps"):
        read_long(frame)
    filled = read_long(frame, policy=Policy(gaps="fill"), columns=Columns(future=("price",)))
    # The last value before, never one after: an interpolation would look ahead of a cutoff.
    assert filled["a"].values[:, 0].tolist() == [0, 1, 1, 1, 4, 5]
    assert filled["a"].future[:, 0].tolist() == [1] * 6
    assert (filled.report.inserted, filled.report.filled, filled.report.masked) == (2, 2, 0)
    masked = read_long(frame, policy=Policy(gaps="mask"))
    assert masked["a"].observed[:, 0].tolist() == [True, True, False, False, True, True]
    assert masked["a"].stamps.tolist() == masked["b"].stamps.tolist()
    assert (masked.report.inserted, masked.report.masked) == (2, 2)


def test_missing_values() -> None:
    frame = long_table()
    frame.loc[[0, 3], "y"] = np.nan
    masked = read_long(frame)
    assert masked.report.masked == 2
    filled = read_long(frame, policy=Policy(missing="fill"))["a"].values[:, 0]
    assert np.isnan(filled[0])  # nothing came before
    assert filled[1:].tolist() == [1, 2, 2, 4, 5]
    with pytest.raises(UserError, match=r"series 'a', 2024-01-01 00:00:00: channel 1 is missing \(2 such"):
        read_long(frame, policy=Policy(missing="error"))


def test_irregular_stamps() -> None:
    frame = long_table()
    frame.loc[2, "ds"] = pd.Timestamp("2024-01-01 02:20")
    with pytest.raises(
        UserError, match=r"'a', observation 3: the stamp 2024-01-01 02:20:00 after 2024-01-01 01:00:00 is not"
    ):
        read_long(frame)
    kept = read_long(frame, policy=Policy(irregular="keep"))
    assert kept.frequency is None
    assert kept["a"].stamps[2] == np.datetime64("2024-01-01T02:20")
    resampled = read_long(frame, policy=Policy(irregular="resample"))
    assert resampled["a"].stamps.tolist() == resampled["b"].stamps.tolist()
    assert resampled.report.resampled == 1


@pytest.mark.parametrize(
    "frequency, stamps", [("D", ["2024-01-30", "2024-01-31", "2024-02-01"]), ("ME", ["2024-01-31", "2024-02-29"]),
                          ("MS", ["2024-01-01", "2024-02-01"])]
)  # fmt: skip
def test_resampling_means_and_names_of_steps(frequency: str, stamps: list[str]) -> None:
    times = pd.to_datetime(["2024-01-30 05:00", "2024-01-30 07:00", "2024-01-31 18:00", "2024-02-01 01:00"])
    frame = pd.DataFrame({"unique_id": "a", "ds": times, "y": [1.0, 3.0, 8.0, 9.0]})
    data = read_long(frame, frequency=frequency, policy=Policy(irregular="resample"))
    assert data[0].stamps.astype("datetime64[D]").astype(str).tolist() == stamps
    assert data[0].values[:, 0].tolist() == ([2, 8, 9] if frequency == "D" else [4, 9])


def test_dates_of_one_zone_become_utc_and_old_spellings_are_read(tmp_path: Path) -> None:
    (tmp_path / "z.csv").write_text(
        "unique_id,ds,y\n" + "".join(f"a,2024-01-01T{hour:02}:00:00+02:00,1\n" for hour in range(4))
    )
    data = read_long(tmp_path / "z.csv", frequency="H")
    assert data[0].stamps[0] == np.datetime64("2023-12-31T22")
    assert data.timezone == "UTC"


CSV_ERRORS = [
    ("unique_id,ds,y\na,2024-01-01,1,9\na,2024-01-02,1,9\n", r"cannot be read as a table \(Length of header"),
    (
        "unique_id,ds,y\na,1,1\na,2,1\na,3,1\na,4000000000,1\n",
        r"series 'a': its stamps, from 1 to 4000000000, span 3999999999 steps",
    ),
    ("ds,y\n2024-01-01,1\n", r"no column 'unique_id'; present: ds, y"),
    ("unique_id,ds,y\n", r"header and no rows"),
    ("", r"the file is empty"),
    ("unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,high\n", r"series 'a', row 2: y is 'high', not a number"),
    ("unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,inf\n", r"series 'a', row 2: y is inf; values must be finite"),
    ("unique_id,ds,y\na,2024-01-01,1\na,2024-13-02,1\n", r"series 'a', row 2: ds is '2024-13-02', not a date"),
    ("unique_id,ds,y\na,2024-01-01,1\na,,1\n", r"series 'a', row 2: ds is missing"),
    ("unique_id,ds,y\n,2024-01-01,1\n", r"row 1: unique_id is empty"),
    (
        "unique_id,ds,y\na,2024-01-01T00:00+01:00,1\na,2024-01-01T01:00+02:00,1\n",
        r"row 2: time zone \+02:00 after \+01:00; write all dates in UTC",
    ),
    ("unique_id,ds,y\na,2024-01-01 00:00Z,1\na,2024-01-01 01:00,1\n", r"row 2: time zone none after \+00:00"),
    ("unique_id,ds,y\na,01/02/2024,1\na,02/02/2024,2\n", r"'01/02/2024' can be read in two ways; give date_format"),
    ("unique_id,ds,y\na,20240101,1\na,20240102,2\n", r"20240101 may be dates or whole numbers"),
    ("unique_id,ds,y\na,1.5,1\na,2.5,2\n", r"ds is 1.5; numeric stamps must be whole numbers"),
    ("unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,2\n", r"no frequency can be inferred .*'a', has 2 stamps"),
    (
        "unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,2\na,2024-01-09,2\na,2024-01-29,2\na,2024-01-30 11:07,2\n",
        r"no frequency can be inferred .* at irregular steps\)",
    ),
    ("unique_id,ds,y,y\na,2024-01-01,1,1\n", r"no frequency"),  # pandas renames the second
]


@pytest.mark.parametrize("text, message", CSV_ERRORS)
def test_errors_are_one_line_and_name_the_row(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_long(path)
    assert "\n" not in str(error.value)
    assert "bad.csv" in str(error.value)


def test_other_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a long table .* nor a wide one .*; present: unique_id, when, y"):
        read_series(long_table().rename(columns={"ds": "when"}))
    with pytest.raises(UserError, match=r"the stamps are dates, but the frequency is 1"):
        read_long(long_table(), frequency=1)
    with pytest.raises(UserError, match=r"gaps='repair' is unknown"):
        Policy(gaps="repair")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"it has no rows"):
        read_long(long_table().iloc[:0])
    with pytest.raises(UserError, match=r"row 4: covariate price is missing"):
        read_long(long_table().assign(price=[1, 2, 3, np.nan] * 3), columns=Columns(future=("price",)))
    with pytest.raises(UserError, match=r"series 'b': static column 'kind' changes"):
        read_long(long_table().assign(kind=["x"] * 11 + ["z"]), columns=Columns(static=("kind",)))
    with pytest.raises(UserError, match=r"no series 'c' \("):
        read_long(long_table())["c"]


def test_series_that_are_too_short() -> None:
    data = read_long(pd.concat([long_table(), long_table(3, ("c",))]))
    with pytest.raises(UserError, match=r"series 'c' has 3 rows, lookback 4 \+ horizon 2 needs 6 \(1 of 3 series"):
        data.require_length(6, "lookback 4 + horizon 2")
    kept = data.require_length(6, "lookback 4 + horizon 2", "drop")
    assert kept.names == ["a", "b"]
    assert kept.report.dropped_series == ("c",)
    assert str(kept.report) == "1 series dropped"
    assert data.require_length(6, "", "keep").names == ["a", "b", "c"]
    with pytest.raises(UserError, match="no series has the 7 rows"):
        data.require_length(7, "it", "drop")


def test_a_date_format_reads_other_dates(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("unique_id,ds,y\n" + "".join(f"a,{day:02}/02/2024,{day}\n" for day in range(1, 6)))
    data = read_long(path, date_format="%d/%m/%Y")
    assert data[0].stamps[1] == np.datetime64("2024-02-02")
    path.write_text("unique_id,ds,y\n" + "".join(f"a,202402{day:02},{day}\n" for day in range(1, 6)))
    assert read_long(path, date_format="%Y%m%d")[0].stamps[4] == np.datetime64("2024-02-05")


# Covariates over the horizon


def known_ahead() -> tuple[Any, pd.DataFrame]:
    data = read_long(long_table().assign(price=1.0), columns=Columns(future=("price",)))
    return data, future_frame(data, 3).assign(price=np.arange(6.0))


def test_future_covariates_are_matched_by_stamp() -> None:
    data, frame = known_ahead()
    assert frame["ds"].iloc[0] == pd.Timestamp("2024-01-01 06:00")
    found = read_future(frame.sample(frac=1, random_state=1), data, 3)
    assert found["a"][:, 0].tolist() == [0, 1, 2]
    assert found["b"][:, 0].tolist() == [3, 4, 5]


def test_future_covariates_must_cover_the_horizon_exactly() -> None:
    data, frame = known_ahead()
    with pytest.raises(UserError, match=r"no row for a 2024-01-01 07:00:00, b 2024-01-01 08:00:00; add them"):
        read_future(frame.drop(index=[1, 5]), data, 3)
    with pytest.raises(
        UserError, match=r"series 'a', row 3: 2024-01-01 08:00:00 is not among the next 2 steps \(2 such"
    ):
        read_future(frame, data, 2)
    with pytest.raises(UserError, match=r"series 'a', row 7: the stamp 2024-01-01 06:00:00 is there already"):
        read_future(pd.concat([frame, frame.iloc[:1]]), data, 3)
    with pytest.raises(UserError, match=r"price is missing at 2024-01-01T06"):
        read_future(frame.assign(price=np.nan), data, 3)
    with pytest.raises(UserError, match=r"covariates price are needed for the next 3 steps"):
        read_future(None, data, 3)
