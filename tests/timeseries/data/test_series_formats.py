"""M4, Monash and UCR/UEA files, and calendar features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longscan.core.errors import UserError
from longscan.timeseries.data import calendar_features, calendar_integers, read_m4, read_series, read_ts, read_tsf

M4 = '"V1","V2","V3","V4","V5"\n"H1","1","2","3",""\n"H2","4.5","5","6","7"\n'


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_m4_rows_are_ragged_and_paired_by_name(tmp_path: Path) -> None:
    train = write(tmp_path, "Hourly-train.csv", M4)
    test = write(tmp_path, "Hourly-test.csv", '"V1","V2"\n"H2","8"\n"H1","9"\n')
    first, second = read_m4(train, test)
    assert second is not None
    assert (first.season, first.horizon) == (24, 48)
    assert first["H1"].values[:, 0].tolist() == [1, 2, 3]
    assert second["H1"].values[:, 0].tolist() == [9]
    assert (first["H2"].stamps.tolist(), second["H2"].stamps.tolist()) == ([1, 2, 3, 4], [5])
    assert read_series(train).names == ["H1", "H2"]
    assert read_m4(train, group="Weekly")[0].season == 1


def test_m4_errors(tmp_path: Path) -> None:
    train = write(tmp_path, "Hourly-train.csv", M4)
    with pytest.raises(UserError, match=r"series 'H1' is in only one"):
        read_m4(train, write(tmp_path, "t.csv", '"V1","V2"\n"H2","8"\n'))
    with pytest.raises(UserError, match=r"series 'H1', row 1, column 3: '' is no number"):
        read_m4(write(tmp_path, "Hourly-2.csv", '"V1","V2","V3","V4"\n"H1","1","","3"\n'))
    with pytest.raises(UserError, match=r"no group of M4 in the name"):
        read_m4(write(tmp_path, "mine.csv", M4))
    with pytest.raises(UserError, match=r"row 2: series 'H1' occurs twice"):
        read_m4(write(tmp_path, "Hourly-3.csv", '"V1","V2"\n"H1","1"\n"H1","1"\n'))


TSF = """# prose
@relation Demo
@attribute series_name string
@attribute start_timestamp date
@frequency {frequency}
@horizon 2
@missing true
@equallength false
@data
T1:{start} 00-00-00:1,2,?,4
T2:2020-02-01 00-00-00:5,6
"""


def test_tsf(tmp_path: Path) -> None:
    data = read_series(write(tmp_path, "demo.tsf", TSF.format(frequency="monthly", start="2020-01-01")))
    assert data["T1"].observed[:, 0].tolist() == [True, True, False, True]
    assert data["T1"].stamps.astype("datetime64[M]").astype(str).tolist() == [
        "2020-01",
        "2020-02",
        "2020-03",
        "2020-04",
    ]
    assert (str(data.frequency), data.season, data.horizon) == ("MS", 12, 2)
    minutes = read_tsf(write(tmp_path, "m.tsf", TSF.format(frequency="10_minutes", start="2020-01-05")))
    assert (str(minutes.frequency), minutes.season) == ("10min", 144)


def test_tsf_starts_off_the_calendar_are_not_shifted(tmp_path: Path) -> None:
    data = read_tsf(write(tmp_path, "demo.tsf", TSF.format(frequency="monthly", start="2020-01-15")))
    assert data["T1"].stamps.tolist() == [1, 2, 3, 4]
    assert data.season == 12


def test_tsf_errors(tmp_path: Path) -> None:
    text = TSF.format(frequency="monthly", start="2020-01-01")
    for wrong, message in (
        (text.replace("5,6", "5,x"), r"line 11: series 'T2', value 2: 'x' is neither a number nor \?"),
        (text.replace("T2:2020-02-01 00-00-00:", "T2:"), r"line 11: 1 attributes, but the header names 2"),
        (text.replace("2020-02-01 00-00-00", "soon"), r"series 'T2': start_timestamp 'soon' is not like"),
        (text.replace("T2", "T1"), r"series 'T1' occurs twice"),
        (text.replace("@data", ""), r"line 10: values before @data"),
        (text.replace("monthly", "often"), r"frequency 'often' is unknown"),
        (text.partition("T1:")[0], r"no series after @data"),
    ):
        with pytest.raises(UserError, match=message):
            read_tsf(write(tmp_path, "bad.tsf", wrong))


TS = """# prose
@problemName Demo
@timeStamps false
@missing true
@univariate false
@equalLength false
@classLabel true up down
@data
1,2,3:4,5,6:down
1,?:0,1:up
"""


def test_ts(tmp_path: Path) -> None:
    data = read_ts(write(tmp_path, "Demo_TRAIN.ts", TS))
    assert data.lengths.tolist() == [3, 2]
    assert data.channels == 2
    assert data.values[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert np.isnan(data.values[1]).tolist() == [[False, False], [True, False]]
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]
    assert data.class_names == ("up", "down")


def test_ts_of_numbers(tmp_path: Path) -> None:
    data = read_ts(write(tmp_path, "r.ts", "@targetlabel true\n@data\n1,2:0.5\n3,4:-1\n"))
    assert data.labels is not None
    assert data.labels.tolist() == [0.5, -1]
    assert data.class_names == ()


def test_ts_errors(tmp_path: Path) -> None:
    for wrong, message in (
        (TS.replace(":up", ":left"), r"class 'left' of series 2 is not in @classLabel"),
        (TS.replace("1,?:0,1", "1,?:0,1:0,0"), r"line 10: 3 channels, the series before have 2"),
        (TS.replace("1,?:0,1", "1,?:0"), r"line 10: channels of lengths 2, 1"),
        (TS.replace("4,5,6", "4,five,6"), r"line 9: channel 2: 'five' is neither"),
        (TS.replace("timeStamps false", "timeStamps true"), r"stamps of their own"),
    ):
        with pytest.raises(UserError, match=message):
            read_ts(write(tmp_path, "bad.ts", wrong))
    with pytest.raises(UserError, match=r"read it with read_ts"):
        read_series(write(tmp_path, "bad.ts", TS))


def test_calendar_features() -> None:
    stamps = np.array(["2024-01-01T00", "2024-12-31T23"], dtype="datetime64[us]")  # a Monday, a Tuesday
    assert calendar_features(stamps, "h")[0].tolist() == [-0.5, -0.5, -0.5, -0.5]
    assert calendar_features(stamps, "h")[1] == pytest.approx([0.5, 1 / 6 - 0.5, 0.5, 0.5])
    counts = {"h": 4, "15min": 5, "s": 6, "D": 3, "B": 3, "W": 2, "MS": 1, "ME": 1, "YE": 1}
    assert {alias: calendar_features(stamps, alias).shape[1] for alias in counts} == counts
    fine = pd.date_range("2023-01-01 00:00:58", periods=9, freq="250ms").to_numpy()
    assert calendar_features(fine, "250ms")[[3, 4], 0] == pytest.approx([58 / 59 - 0.5, 0.5])  # seconds
    assert calendar_features(fine, "250ms").shape == (9, 6)
    features = calendar_features(pd.date_range("2023-01-01", periods=9000, freq="h").to_numpy(), "h")
    assert (features.min(), features.max()) == (-0.5, 0.5)
    assert calendar_integers(stamps).tolist() == [[1, 1, 0, 0], [12, 31, 1, 23]]
    with pytest.raises(UserError, match="whole numbers have no calendar"):
        calendar_features(np.arange(3), 1)  # type: ignore[arg-type]
