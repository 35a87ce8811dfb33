"""What is missing, filled by lines, bridged forecasts and models trained by masking; the table that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from longscan.core.errors import UserError
from longscan.timeseries.baselines.forecasters import make_baseline
from longscan.timeseries.data import SeriesSet, make_series
from longscan.timeseries.frequency import parse_frequency
from longscan.timeseries.imputation import (
    BridgedForecasts,
    LinearInterpolation,
    SeasonalInterpolation,
    gap_patterns,
    hide_cells,
    measure_errors,
)
from longscan.timeseries.masked_training import MaskedImputer
from longscan.timeseries.models.imputer import SeriesImputer, SeriesImputerConfig, interpolated

NAN = np.nan


def series_set(*values: Any, season: int = 1, channels: tuple[str, ...] = ("y",)) -> SeriesSet:
    """Hourly series of given values."""
    stamps = np.datetime64("2024-01-01T00", "us") + np.arange(2000) * np.timedelta64(3600, "s")
    found = [make_series(f"s{number}", stamps[: len(one)], np.array(one)) for number, one in enumerate(values)]
    return SeriesSet(tuple(found), parse_frequency("h"), channels=channels, season_length=season)


def waves(rows: int = 400, seed: int = 0) -> np.ndarray:
    """Three channels far from 0, two of which follow the first, (rows, 3)."""
    generator = np.random.default_rng(seed)
    first = np.sin(np.arange(rows) * 0.7) + np.sin(np.arange(rows) * 0.31)
    columns = np.stack([first, -2 * first, 0.5 * first + 0.05 * generator.normal(size=rows)], 1)
    return 1e3 + 50 * columns


def test_lines_and_seasons() -> None:
    data = series_set([NAN, 1, NAN, NAN, 4, NAN], [5, 9, 6, NAN, 7, 11, 8, 12], season=2)
    assert LinearInterpolation().fill(data)[0][:, 0].tolist() == [1, 1, 2, 3, 4, 4]
    # Odd places lie (9 + 11 + 12) / 3 - (5 + 6 + 7 + 8) / 4 higher; neighbours leave -0.5 and 0.5.
    assert SeasonalInterpolation().fill(data)[1][3, 0] == pytest.approx(32 / 3)
    assert SeasonalInterpolation().fill(data)[1][:3, 0].tolist() == [5, 9, 6]


def test_interpolation_in_torch_is_that_of_numpy() -> None:
    generator = np.random.default_rng(0)
    values = np.where(generator.random((4, 30, 2)) < 0.5, NAN, generator.normal(size=(4, 30, 2)))
    values[3, :, 1] = NAN
    found, distance = interpolated(torch.from_numpy(values).nan_to_num(), torch.from_numpy(~np.isnan(values)))
    wanted = np.stack(LinearInterpolation().fill(series_set(*values, channels=("a", "b"))))
    assert np.allclose(found.numpy(), wanted)
    for channel in range(2):
        known = np.flatnonzero(~np.isnan(values[0, :, channel]))
        nearest = np.abs(np.arange(30)[:, None] - known).min(1)
        assert distance[0, :, channel].tolist() == nearest.tolist()
    assert distance[3, 0, 1] == 30


def test_forecasts_are_bent_to_meet_what_follows() -> None:
    season = np.tile([0.0, 3, 5, 2], 20) + 100
    drifting = season + 0.5 * np.arange(80)
    holed = drifting.copy()
    holed[40:46] = NAN
    holed[3] = NAN  # without a history
    data = series_set(holed, season=4)
    filled = (
        BridgedForecasts(make_baseline("seasonal-naive", lookback=8, horizon=8), 8, 8).fit(data).fill(data)[0][:, 0]
    )
    continued = np.concatenate([drifting[36:40], drifting[36:39]])
    miss = drifting[46] - continued[6]
    assert np.allclose(filled[40:46], continued[:6] + miss * np.arange(1, 7) / 7)
    assert filled[3] == pytest.approx((drifting[2] + drifting[4]) / 2)
    assert np.array_equal(filled[~np.isnan(holed)], drifting[~np.isnan(holed)])


def test_hidden_cells_are_like_those_missing() -> None:
    values = waves()
    values[100:106] = NAN
    values[200:203, 1] = NAN
    data = series_set(values, channels=("a", "b", "c"))
    assert sorted(gap_patterns(data)) == [(3, False), (6, True)]
    held = hide_cells(data, 0.2, seed=1)
    assert held is not None
    choose, report, left = held.choose[0], held.report[0], held.data[0].values
    seen = ~np.isnan(values)
    assert not (choose & report).any()
    assert (choose | report)[seen].mean() == pytest.approx(0.2, abs=0.03)
    assert np.array_equal(np.isnan(left), ~seen | choose | report)
    assert np.array_equal(left[~np.isnan(left)], values[~np.isnan(left)])
    whole = (choose | report).all(1).sum() * 3 / (choose | report).sum()
    assert 0.3 < whole < 0.95  # runs of both kinds
    again = hide_cells(data, 0.2, seed=1)
    assert again is not None
    assert np.array_equal(again.choose[0], choose)
    assert hide_cells(series_set([1, 2, 3]), 0.2) is None


def test_errors_by_hand() -> None:
    data = series_set([1, 2, 3, 4], [10, 10, 10, 10])
    cells = [np.array([[True], [False], [True], [False]]), np.array([[True]] + [[False]] * 3)]
    errors = measure_errors([np.array([[2.0], [0], [0], [0]]), np.array([[13.0], [0], [0], [0]])], data, cells)
    assert errors.mae == pytest.approx((1 + 3 + 3) / 3)
    assert errors.rmse == pytest.approx(np.sqrt((1 + 9 + 9) / 3))
    assert errors.scaled_mae == pytest.approx((4 / np.std([1, 2, 3, 4]) + 3) / 3)
    assert errors.cells == 3


def test_an_untrained_model_interpolates() -> None:
    model = SeriesImputer(SeriesImputerConfig(variates=3, d_model=8, n_layers=1, window=50))
    values = waves(50)
    values[10:20, 1] = NAN
    model.fit_scaling(torch.from_numpy(values))
    wanted = LinearInterpolation().fill(series_set(values, channels=("a", "b", "c")))[0]
    assert np.allclose(model(torch.from_numpy(values[None]))[0].detach().numpy(), wanted, rtol=1e-5)


def test_masked_training_beats_the_line(tmp_path: Path) -> None:
    values = waves(600)
    holed = np.where(np.random.default_rng(5).random(values.shape) < 0.3, NAN, values)
    data = series_set(holed, channels=("a", "b", "c"))
    options = {"d_model": 32, "n_layers": 1, "mixer": {"name": "bidirectional", "mixer": "s4d"}}
    imputer = MaskedImputer(window=48, steps=60, lr=1e-2, device="cpu", options=options).fit(data)
    found, line = imputer.fill(data)[0], LinearInterpolation().fill(data)[0]
    missing = np.isnan(holed)
    assert np.array_equal(found[~missing], values[~missing])
    ours, naive = (np.abs(one - values)[missing].mean() for one in (found, line))
    assert ours < 0.6 * naive
    loaded = MaskedImputer.load(imputer.model.save_pretrained(tmp_path / "imputer"), "cpu")
    assert np.allclose(loaded.fit(data).fill(data)[0], found)
    with pytest.raises(UserError, match="has the channels a, b, d; the model was trained on a, b, c"):
        loaded.fill(series_set(holed, channels=("a", "b", "d")))


LONG = """shop,day,price,y,note
a,2024-01-01,1.50,10,x
b,2024-01-01,7,1e3,
a,2024-01-02,1.5,,"y, z"
a,2024-01-04,1.5,16.000,x
b,2024-01-02,7,NA,x
b,2024-01-03,8,3e3,x
b,2024-01-04,8,4e3,x
a,2024-01-05,1.5,18,x
"""


def test_every_other_cell_stays_as_it_is_written(command: Any) -> None:
    Path("sales.csv").write_text(LONG)
    outcome = command("timeseries impute --data sales.csv --id-column shop --time-column day --model linear "
                      "--output filled.csv --cells cells.csv")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "3 values filled by linear interpolation" in outcome.out
    assert "errors are not measured" in outcome.out
    assert Path("filled.csv").read_text() == (
        "shop,day,price,y,note\n"
        "a,2024-01-01,1.50,10,x\n"
        "b,2024-01-01,7,1e3,\n"
        'a,2024-01-02,1.5,12,"y, z"\n'
        "a,2024-01-03,,14,\n"
        "a,2024-01-04,1.5,16.000,x\n"
        "b,2024-01-02,7,2000,x\n"
        "b,2024-01-03,8,3e3,x\n"
        "b,2024-01-04,8,4e3,x\n"
        "a,2024-01-05,1.5,18,x\n"
    )
    cells = pd.read_csv("cells.csv")
    assert cells.values.tolist() == [
        ["a", "2024-01-02", "y", 12],
        ["a", "2024-01-03", "y", 14],
        ["b", "2024-01-02", "y", 2000],
    ]


def test_auto_trains_compares_and_saves(command: Any) -> None:
    values = waves(300)
    frame = pd.DataFrame(values, columns=list("abc"))
    frame.insert(0, "date", pd.date_range("2024-01-01", periods=300, freq="h"))
    frame.loc[40:44, "b"] = NAN
    frame.drop(index=[100, 101]).to_csv("wide.csv", index=False)
    line = "timeseries impute --data wide.csv --device cpu"
    outcome = command(f"{line} --train-steps 25 --window 32 --hide 0.2 --save imputer --output filled.csv")
    assert outcome.status == 0, outcome.err
    for name in ("linear interpolation", "seasonal interpolation", "SeriesImputer", "chosen: SeriesImputer"):
        assert name in outcome.out
    filled = pd.read_csv("filled.csv")
    assert filled["date"].tolist() == frame["date"].astype(str).tolist()
    assert filled.notna().all().all()
    known = frame.notna().all(axis=1) & ~frame.index.isin([100, 101])
    assert np.allclose(filled.loc[known, list("abc")], frame.loc[known, list("abc")])
    errors = np.abs(filled[list("abc")].to_numpy() - values)
    assert errors[100:102].max() < 100
    again = command(f"{line} --model imputer --output again.csv")
    assert again.status == 0, again.err
    assert np.allclose(pd.read_csv("again.csv")[list("abc")], filled[list("abc")])
    ridge = command(f"{line} --model ridge-nlinear --output ridge.csv")
    assert ridge.status == 0, ridge.err
    assert "ridge-nlinear, bridged" in ridge.out


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("x", "x"), "--model linear --hide 0.7", "share 0.7 must lie above 0"),
        (("price,y,", "price,value,"), "--layout long", "present: shop, day, price, value, note"),
        (("16.000", "many"), "", "series 'a', row 4: y is 'many'"),
        (("16.000", "inf"), "", "inf"),
        (("2024-01-04,1.5", "2024-01-02,1.5"), "", "series 'a', row 4: the stamp 2024-01-02"),
        (("2024-01-04,1.5", "soon,1.5"), "", "row 4: day is 'soon'"),
        (("x", "x"), "--gaps fill", "impute fills what is missing itself"),
        (("x", "x"), "--model linear --save folder", "goes with --model masked or auto"),
        (("x", "x"), "--model linaer", "no such model or baseline"),
        (("x", "x"), "--layout tsf", "give a long or wide one"),
    ],
)
def test_bad_input(change: tuple[str, str], options: str, message: str, command: Any) -> None:
    Path("sales.csv").write_text(LONG.replace(*change))
    outcome = command(
        f"timeseries impute --data sales.csv --id-column shop --time-column day --output out.csv {options}"
    )
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert message in outcome.err
    assert not Path("out.csv").exists()


def test_a_series_without_any_value(command: Any) -> None:
    Path("sales.csv").write_text(LONG.replace("1e3", "").replace("3e3", "").replace("4e3", ""))
    outcome = command("timeseries impute --data sales.csv --id-column shop --time-column day --output out.csv")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "series 'b': y is never observed" in outcome.err
