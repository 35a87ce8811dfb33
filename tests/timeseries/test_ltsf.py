"""The protocol of long-term forecasting on ETTh1: certified sums, counts and scores, and each of its known traps."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longscan.core.errors import UserError
from longscan.timeseries.baselines.forecasters import ltsf_baseline
from longscan.timeseries.baselines.naive import repeat_last
from longscan.timeseries.datasets import dataset_path
from longscan.timeseries.ltsf import HORIZONS, LTSFData, ScoreSums, evaluate_ltsf, load_ltsf, split_borders


@pytest.fixture(scope="module")
def etth1() -> LTSFData:
    return load_ltsf("ETTh1")


@pytest.fixture(scope="module")
def measured(golden: Path) -> dict:
    return json.loads((golden / "timeseries" / "ETTh1_baselines.json").read_text())


def table(rows: int, columns: int = 3, name: str = "OT") -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(rows, columns))
    names = [*(f"c{i}" for i in range(columns - 1)), name]
    frame = pd.DataFrame(values, columns=names)
    frame.insert(0, "date", pd.date_range("2020-01-01", periods=rows, freq="D"))
    return frame


def written(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    frame.to_csv(folder / name, index=False)
    return folder / name


def test_the_packaged_file_is_the_original() -> None:
    content = gzip.decompress(dataset_path("ETTh1").read_bytes())
    assert len(content) == 2_589_657
    assert hashlib.sha256(content).hexdigest() == "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"


def test_windows_agree_with_certified_sums(etth1: LTSFData, golden: Path) -> None:
    """Splits, scaling and indexing, pinned by the sums over every window of each split."""
    fixture = json.loads((golden / "timeseries" / "ETTh1_windows.json").read_text())
    assert (len(etth1.values), list(etth1.channels)) == (fixture["rows"], fixture["channels"])
    assert (etth1.borders.train, etth1.borders.val, etth1.borders.test) == (8640, 11520, 14400)
    for case, expected in fixture["cases"].items():
        lookback, horizon, split = case.split("_")
        inputs, targets = etth1.windows(split, int(lookback[1:]), int(horizon[1:]))
        assert len(inputs) == len(targets) == expected["n_windows"]
        rows = etth1.segment(split, int(lookback[1:]))
        assert rows.start == expected["first_input_row"]
        assert rows.start + int(lookback[1:]) == expected["first_target_row"]
        assert rows.stop - 1 == expected["last_target_row"]
        assert inputs.sum() == pytest.approx(expected["x_sum"], rel=1e-9)
        assert targets.sum() == pytest.approx(expected["y_sum"], rel=1e-9)
        assert (targets**2).sum() == pytest.approx(expected["y_sumsq"], rel=1e-9)


def test_scaler_is_of_the_training_rows_with_ddof_0(etth1: LTSFData) -> None:
    mean = [7.937742, 2.021039, 5.079771, 0.746186, 2.781762, 0.788453, 17.128262]
    std = [5.812749, 2.090105, 5.518794, 1.926379, 1.023523, 0.630237, 9.176491]
    assert etth1.mean == pytest.approx(mean, abs=5e-7)
    assert etth1.std == pytest.approx(std, abs=5e-7)
    assert etth1.scaled[:8640].std(0) == pytest.approx(np.ones(7), abs=1e-12)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_repeat_last(etth1: LTSFData, measured: dict, horizon: int) -> None:
    score = evaluate_ltsf(ltsf_baseline("repeat-last", etth1, 96, horizon), etth1, 96, horizon)
    expected = measured["ETTh1"]["naive_last"][str(horizon)]
    assert (score.mse, score.mae) == pytest.approx((expected["mse"], expected["mae"]), rel=1e-9)
    assert score.windows == expected["n_windows"] == 2881 - horizon
    assert str(score.windows) in str(score)
    assert score.mse_by_step.mean() == pytest.approx(score.mse)


@pytest.mark.parametrize("horizon, mse", list(zip(HORIZONS, (1.2944, 1.3249, 1.3299, 1.3351), strict=True)))
def test_repeat_last_as_published_without_the_dropped_batch(etth1: LTSFData, horizon: int, mse: float) -> None:
    score = evaluate_ltsf(functools.partial(repeat_last, horizon=horizon), etth1, 336, horizon)
    assert score.mse == pytest.approx(mse, abs=1e-4)


def test_seasonal_naive(etth1: LTSFData, measured: dict) -> None:
    score = evaluate_ltsf(ltsf_baseline("seasonal-naive", etth1, 96, 96), etth1, 96, 96)
    expected = measured["ETTh1"]["seasonal_naive_24"]["96"]
    assert (score.mse, score.mae) == pytest.approx((expected["mse"], expected["mae"]), rel=1e-9)


@pytest.mark.parametrize("kind", ["linear", "nlinear", "rlinear"])
@pytest.mark.parametrize("horizon", [96, 192])
def test_closed_form_maps(etth1: LTSFData, measured: dict, kind: str, horizon: int) -> None:
    score = evaluate_ltsf(ltsf_baseline(f"ridge-{kind}", etth1, 96, horizon), etth1, 96, horizon)
    expected = measured["ETTh1"][f"ridge_{kind}_L96"][str(horizon)]
    assert (score.mse, score.mae) == pytest.approx((expected["mse"], expected["mae"]), rel=1e-6)


@pytest.mark.parametrize("horizon, gate", list(zip(HORIZONS, (0.372, 0.406, 0.430, 0.436), strict=True)))
def test_closed_form_nlinear_at_lookback_336(etth1: LTSFData, measured: dict, horizon: int, gate: float) -> None:
    score = evaluate_ltsf(ltsf_baseline("ridge-nlinear", etth1, 336, horizon), etth1, 336, horizon)
    assert score.mse <= gate
    assert score.mse == pytest.approx(measured["ETTh1"]["ridge_nlinear_L336"][str(horizon)]["mse"], rel=1e-6)


# The traps


def test_no_window_is_dropped_whatever_the_batch(etth1: LTSFData, measured: dict) -> None:
    """Dropping the last batch of 512 would give 1.2723 in place of 1.2944."""
    forecaster = functools.partial(repeat_last, horizon=96)
    scores = [evaluate_ltsf(forecaster, etth1, 96, 96, batch_size=size) for size in (1, 32, 512, 5000)]
    assert {score.windows for score in scores} == {2785}
    assert [score.mse for score in scores] == pytest.approx([1.2943705947845097] * 4, rel=1e-12)
    inputs, targets = etth1.windows("test", 96, 96)
    dropped = ((repeat_last(inputs[:2560], 96) - targets[:2560]) ** 2).mean()
    assert dropped == pytest.approx(measured["drop_last"]["96"]["bs512"][1], rel=1e-9)
    assert abs(dropped - scores[0].mse) > 0.02


def test_batches_of_unequal_size_are_not_averaged() -> None:
    sums = ScoreSums()
    sums.update(np.zeros((3, 2, 1)), np.ones((3, 2, 1)))
    sums.update(np.zeros((1, 2, 1)), np.full((1, 2, 1), 3.0))
    assert sums.compute().mse == pytest.approx((3 * 1 + 9) / 4)
    assert sums.compute().mae == pytest.approx((3 * 1 + 3) / 4)


def test_validation_and_test_windows_read_but_never_predict_the_split_before(etth1: LTSFData) -> None:
    for split, begin in (("val", 8640), ("test", 11520)):
        inputs, targets = etth1.windows(split, 336, 96)
        assert np.array_equal(targets[0], etth1.scaled[begin : begin + 96])
        assert np.array_equal(inputs[0], etth1.scaled[begin - 336 : begin])
    inputs, targets = etth1.windows("train", 336, 96)
    assert np.array_equal(targets[-1], etth1.scaled[8640 - 96 : 8640])


@pytest.mark.parametrize("lookback", [96, 336, 720])
def test_window_counts(etth1: LTSFData, lookback: int) -> None:
    counts = [etth1.window_count("test", lookback, horizon) for horizon in HORIZONS]
    assert counts == [2785, 2689, 2545, 2161]
    if lookback == 336:
        assert [etth1.window_count("train", 336, horizon) for horizon in HORIZONS] == [8209, 8113, 7969, 7585]


def test_the_last_3020_rows_are_unused(etth1: LTSFData) -> None:
    assert len(etth1.values) - etth1.borders.test == 3020


def test_other_tables_are_split_70_10_20_with_validation_taking_the_rest() -> None:
    borders = split_borders("exchange", 7588)
    assert (borders.train, borders.val, borders.test) == (5311, 6071, 7588)
    assert 6071 - 5311 - 720 + 1 == 41  # windows of exchange's validation at horizon 720
    minutes = split_borders("ETTm2", 69680)
    assert (minutes.train, minutes.val, minutes.test) == (34560, 46080, 57600)


def test_counts_of_exchange(tmp_path: Path) -> None:
    data = load_ltsf(written(table(7588), tmp_path, "exchange_rate.csv"))
    assert data.name == "exchange"
    assert [data.window_count("test", 336, horizon) for horizon in HORIZONS] == [1422, 1326, 1182, 798]
    assert [data.window_count("train", 336, horizon) for horizon in HORIZONS] == [4880, 4784, 4640, 4256]
    assert data.window_count("val", 336, 720) == 41


def test_the_target_is_last_and_chosen_by_name(tmp_path: Path) -> None:
    frame = table(200)[["date", "OT", "c0", "c1"]]
    path = written(frame, tmp_path, "mine.csv")
    data = load_ltsf(path)
    assert data.channels == ("c0", "c1", "OT")
    assert data.values[:, -1] == pytest.approx(frame["OT"].to_numpy())
    alone = load_ltsf(path, features="S", target="c1")
    assert alone.channels == ("c1",)
    both = load_ltsf(path, features="MS")
    inputs, targets = both.windows("test", 10, 5)
    assert (inputs.shape[2], targets.shape[2]) == (3, 1)
    assert np.array_equal(targets[0, :, 0], both.scaled[160:165, 2])
    score = evaluate_ltsf(functools.partial(repeat_last, horizon=5), both, 10, 5)
    assert score.mse == pytest.approx(((np.repeat(inputs[:, -1:, 2:], 5, 1) - targets) ** 2).mean())


def test_a_constant_channel_is_divided_by_one(tmp_path: Path) -> None:
    data = load_ltsf(written(table(200).assign(c0=5.0), tmp_path, "mine.csv"))
    assert data.std[0] == 1
    assert not data.scaled[:, 0].any()


def test_errors(tmp_path: Path, etth1: LTSFData) -> None:
    gap = table(200)
    gap.loc[50, "c1"] = np.nan
    with pytest.raises(UserError, match=r"2020-02-20.*channel 2 is missing"):
        load_ltsf(written(gap, tmp_path, "mine.csv"))
    with pytest.raises(UserError, match=r"no column 'date'; present: day, c0, c1, OT"):
        load_ltsf(written(table(50).rename(columns={"date": "day"}), tmp_path, "other.csv"))
    with pytest.raises(UserError, match=r"ETTh2: 200 rows, the protocol needs 14400"):
        load_ltsf(written(table(200), tmp_path, "ETTh2.csv"))
    with pytest.raises(UserError, match=r"no train window of lookback 8600 and horizon 96"):
        etth1.windows("train", 8600, 96)
    with pytest.raises(UserError, match=r"longer than the 8640 rows before val"):
        etth1.windows("val", 8641, 96)
    with pytest.raises(UserError, match=r"not finite"):
        evaluate_ltsf(lambda inputs: np.full((len(inputs), 96, 7), np.nan), etth1, 96, 96)
