"""``evaluate``, ``forecast`` and ``backtest``: what they write, and what they refuse in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from series_tables import sales, wide

from longscan.core.errors import UserError
from longscan.timeseries.baselines.forecasters import make_baseline
from longscan.timeseries.baselines.naive import seasonal_naive_quantiles
from longscan.timeseries.data import make_series
from longscan.timeseries.data.series import SeriesSet
from longscan.timeseries.frequency import Frequency
from longscan.timeseries.metrics import mase, smape
from longscan.timeseries.naming import known_names
from longscan.timeseries.selection import select
from longscan.timeseries.trainable import usual_options
from longscan.timeseries.trained import load_forecaster


def scores(folder: str = "out") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((Path(folder) / "scores.json").read_text())["scores"]
    return found


# evaluate


def test_long_term_protocol(command: Any) -> None:
    """The certified numbers of ETTh1, with four decimals and the number of windows beside each."""
    outcome = command("timeseries evaluate --protocol ltsf --data ETTh1 --horizons 96,720 --lookback 96 --output out")
    assert outcome.status == 0, outcome.err
    rows = {(row["model"], row["horizon"]): row for row in scores()}
    assert [rows["repeat-last", horizon]["mse"] for horizon in (96, 720)] == [1.2944, 1.3351]
    assert [rows["ridge-nlinear", horizon]["mse"] for horizon in (96, 720)] == [0.3831, 0.4697]
    assert [rows["seasonal-naive", horizon]["mae"] for horizon in (96, 720)] == [0.4333, 0.5141]
    assert [rows["repeat-last", horizon]["windows"] for horizon in (96, 720, "mean")] == [2785, 2161, 4946]
    assert rows["repeat-last", "mean"]["mse"] == pytest.approx((1.2944 + 1.3351) / 2, abs=1e-4)
    assert rows["repeat-last", 96]["verdict"] == "does not beat ridge-nlinear"
    table = pd.read_csv("out/scores.csv")
    assert list(table.columns[:6]) == ["model", "lookback", "horizon", "mse", "mae", "windows"]
    assert "1.2944  0.7132  2785" in outcome.out


def test_a_checkpoint_beside_the_baselines(command: Any, tables: Path) -> None:
    """One folder for each horizon, scored as ``test`` scores it."""
    for horizon in (6, 12):
        fit = (
            "timeseries fit --model Forecasting --model.model ltsf_nlinear --data LTSFDataModule "
            f"--data.source wide.csv --data.lookback 24 --data.horizon {horizon} --data.batch_size 64 "
            "--trainer.max_epochs 2 --trainer.accelerator cpu --trainer.enable_progress_bar false "
            f"--checkpoint.monitor val/mse --output runs/{horizon}"
        )
        assert command(fit).status == 0
        assert command(f"timeseries test --ckpt_path runs/{horizon}/checkpoints/best.ckpt --trainer.accelerator cpu "
                       "--trainer.enable_progress_bar false").status == 0  # fmt: skip
    line = "timeseries evaluate --protocol ltsf --data wide.csv --horizons 6,12 --lookback 24 --device cpu --output out"
    outcome = command(line + " --model 'runs/{horizon}'")
    assert outcome.status == 0, outcome.err
    for horizon in (6, 12):
        tested = json.loads(Path(f"runs/{horizon}/test/metrics.json").read_text())["metrics"]
        row = next(row for row in scores() if row["model"] == "runs/{horizon}" and row["horizon"] == horizon)
        assert row["mse"] == pytest.approx(tested["test/mse"], abs=5e-5)
        assert row["windows"] == tested["test/windows"] == 80 - horizon + 1
    # As ``fit --seeds 2`` leaves them, which starts a process for each.
    shutil.copytree("runs/12", "seeds/seed0")
    second_seed = command(fit.replace("runs/12", "seeds/seed1") + " --seed_everything 1")
    assert second_seed.status == 0, second_seed.err
    alone = command(line.replace("6,12", "12") + " --model seeds seeds/seed0 seeds/seed1")
    assert alone.status == 0, alone.err
    both, first, second = scores()[-3:]
    assert both["runs"] == 2
    assert both["mse"] == pytest.approx((first["mse"] + second["mse"]) / 2, abs=1e-4)
    assert [both["least_mse"], both["most_mse"]] == sorted([first["mse"], second["mse"]])
    shorter = command(f"{line} --model runs/6")
    assert (shorter.status, shorter.err.count("\n")) == (2, 1)
    assert "horizons up to 6, not 12" in shorter.err
    moved = wide()
    moved.iloc[:, 1:] += 5
    moved.to_csv("wide.csv", index=False)
    other = command(f"{line} --model 'runs/{{horizon}}'")
    assert "was trained on wide, whose scales differ" in other.err
    # The forecast of the run, in original units, with intervals as wide as its errors in validation.
    wide().to_csv("wide.csv", index=False)
    outcome = command("timeseries forecast --data wide.csv --model runs/12 --level 80 --device cpu --output future")
    assert outcome.status == 0, outcome.err
    found = pd.read_csv("future/forecast.csv")
    assert found.groupby("channel", sort=False).size().to_dict() == {"c0": 12, "c1": 12, "c2": 12}
    assert (found["12-hi-80"] > found["12-lo-80"]).all()
    assert found[found.channel == "c2"]["12"].between(190, 210).all()
    outcome = command("timeseries predict --ckpt_path runs/6/checkpoints/best.ckpt --trainer.accelerator cpu "
                      "--trainer.enable_progress_bar false")  # fmt: skip
    assert outcome.status == 0, outcome.err
    table = pd.read_csv("runs/6/predict/predictions.tsv", sep="\t")
    assert list(table.columns) == ["series", "window", "stamp", "channel", "forecast"]
    assert len(table) == 75 * 6 * 3


def m4_files(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Files as M4's, of five series with a daily season."""
    generator = np.random.default_rng(0)
    histories, targets = [], []
    lines: dict[str, list[str]] = {"train": ['"V1","V2"'], "test": ['"V1","V2"']}
    for number in range(5):
        time = np.arange(200 + 10 * number + 48)
        values = np.round(100 + 20 * np.sin(2 * np.pi * time / 24) + generator.normal(size=len(time)), 3)
        histories.append(values[:-48])
        targets.append(values[-48:])
        for kind, part in (("train", values[:-48]), ("test", values[-48:])):
            lines[kind].append(",".join(f'"{cell}"' for cell in (f"H{number + 1}", *part)))
    for kind, rows in lines.items():
        (folder / f"Hourly-{kind}.csv").write_text("\n".join(rows) + "\n")
    return histories, targets


def test_m4(command: Any, tmp_path: Path) -> None:
    """The competition's scores by their definitions; Naive2 is 1 by definition."""
    histories, targets = m4_files(tmp_path)
    outcome = command("timeseries evaluate --protocol m4 --data Hourly-train.csv --model ridge-nlinear --output out")
    assert outcome.status == 0, outcome.err
    rows = {row["model"]: row for row in scores()}
    assert list(rows) == ["naive2", "seasonal-naive", "ridge-nlinear"]
    assert (rows["naive2"]["owa"], rows["naive2"]["windows"]) == (1.0, 5)
    assert "wql" not in rows["naive2"]
    naive = [seasonal_naive_quantiles(history, 48, 24, ())[0] for history in histories]
    errors = np.mean([smape(target, one) for target, one in zip(targets, naive, strict=True)])
    scaled = np.mean(
        [mase(target, one, history, 24) for target, one, history in zip(targets, naive, histories, strict=True)]
    )
    row = rows["seasonal-naive"]
    assert (row["smape"], row["mase"]) == pytest.approx((errors, scaled), abs=6e-5)
    assert row["owa"] == pytest.approx(
        (errors / rows["naive2"]["smape"] + scaled / rows["naive2"]["mase"]) / 2, abs=1e-3
    )
    assert rows["ridge-nlinear"]["mase"] < row["mase"]
    failed = command("timeseries evaluate --protocol m4 --data Hourly-test.csv --output out")
    assert "has no -train in its name, by which to find what followed; give --test" in failed.err


def test_gift(command: Any, tables: Path) -> None:
    line = "timeseries evaluate --protocol gift --data sales.csv --horizons 12,24 --windows 2 --output out"
    outcome = command(line + " --model ridge-nlinear")
    assert outcome.status == 0, outcome.err
    rows = {(row["model"], row["horizon"]): row for row in scores()}
    assert rows["seasonal-naive", 24]["relative_wql"] == 1.0
    assert rows["ridge-nlinear", 12]["windows"] == 6
    ratios = [rows["ridge-nlinear", horizon]["wql"] / rows["seasonal-naive", horizon]["wql"] for horizon in (12, 24)]
    mean = rows["ridge-nlinear", "geometric mean"]["relative_wql"]
    assert mean == pytest.approx(np.sqrt(np.prod(ratios)), abs=5e-3)
    assert mean < 1
    assert "naive2 has no quantiles" in command(f"{line} --model naive2").err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--protocol ltsf --data ETTh1 --model ridge-nliner", "neither a checkpoint nor a baseline"),
        ("--protocol ltsf --data ETTh1 --model mamba_forecaster", "`longscan timeseries fit`"),
        ("--protocol ltsf --data nothing.csv", "no such file"),
        ("--protocol ltsf --data sales.csv", "no column 'date'; present: unique_id, ds, y"),
        ("--protocol ltsf --data ETTh1 --horizons 5000", "no test window of lookback 336 and horizon 5000"),
        ("--protocol ltsf --data ETTh1 --horizons 96,a", "is not a list of different whole numbers"),
        ("--protocol gift --data sales.csv --model seasonal-naiv", "nearest: seasonal-naive"),
        ("--protocol gift --data sales.csv --model runs/gone", "no such file or folder"),
        ("--protocol gift --data sales.csv --model hiss", "HiSS is no forecaster"),
        ("--protocol gift --data sales.csv --model series-classifier", "SeriesClassifier is no forecaster"),
        ("--protocol m5 --data ETTh1", "invalid choice: 'm5'"),
        ("--protocol ltsf --data ETTh1 --output sales.csv", "is a file; name a folder"),
    ],
)
def test_evaluate_refuses(command: Any, tables: Path, more: str, message: str) -> None:
    outcome = command(f"timeseries evaluate --output out {more}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith("longscan: error: ")
    assert message in outcome.err
    assert not Path("out").exists()


# forecast


def test_a_baseline_in_original_units(command: Any, tables: Path) -> None:
    outcome = command("timeseries forecast --data sales.csv --model seasonal-naive --horizon 30 --output out")
    assert outcome.status == 0, outcome.err
    found = pd.read_csv("out/forecast.csv")
    names = ["seasonal-naive", *(f"seasonal-naive-{end}-{share}" for share in (80, 95) for end in ("lo", "hi"))]
    assert list(found.columns) == ["unique_id", "ds", *names]
    one = found[found["unique_id"] == "shop 1"]
    values = sales().query("unique_id == 'shop 1'")["y"].to_numpy()
    point, quantiles = seasonal_naive_quantiles(values, 30, 24, (0.1, 0.975))
    np.testing.assert_allclose(one["seasonal-naive"], point, rtol=1e-9)
    np.testing.assert_allclose(one["seasonal-naive-lo-80"], quantiles[0], rtol=1e-9)
    np.testing.assert_allclose(one["seasonal-naive-hi-95"], quantiles[1], rtol=1e-9)
    assert one["ds"].iloc[0] == "2024-01-11 00:00:00"
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "forecast.csv", "shop_0.png", "shop_1.png", "shop_2.png"
    ]  # fmt: skip
    assert Path("out/shop_0.png").read_bytes().startswith(b"\x89PNG")


def test_a_checkpoint_forecasts_a_table(command: Any, tables: Path, panel_run: Path) -> None:
    """Columns and frequency come from the card; a series shorter than the lookback is padded; nothing is NaN."""
    frame = sales()
    frame = frame[(frame["unique_id"] != "shop 2") | (frame.index >= len(frame) - 10)]
    frame.loc[frame.index[5], "y"] = np.nan
    frame.to_csv("gappy.csv", index=False)
    outcome = command(
        f"timeseries forecast --data gappy.csv --model {panel_run} --pictures 1 --device cpu --output out"
    )
    assert outcome.status == 0, outcome.err
    assert "1 values masked" in outcome.out
    found = pd.read_csv("out/forecast.csv")
    assert found.groupby("unique_id").size().tolist() == [24, 24, 24]
    assert not found.isna().any().any()
    bounds = [f"run-{end}" for end in ("lo-95", "lo-80", "hi-80", "hi-95")]
    assert (np.diff(found[bounds].to_numpy(), axis=1) >= 0).all()
    alone = load_forecaster(panel_run, device="cpu")
    data = SeriesSet(
        (make_series("shop 1", np.arange("2024-01-01", "2024-01-11", dtype="datetime64[h]").astype("datetime64[us]"),
                     sales().query("unique_id == 'shop 1'")["y"].to_numpy()),),
        Frequency("h"),
    )  # fmt: skip
    point = alone.predict(data, 24)[0].point[:, 0]
    np.testing.assert_allclose(found[found["unique_id"] == "shop 1"]["run"], point, rtol=1e-6)


def test_predictions_of_a_panel(command: Any, panel_run: Path) -> None:
    """The verb of training: the future of each series of the run's data, with deciles."""
    outcome = command(
        f"timeseries predict --ckpt_path {panel_run}/checkpoints/best.ckpt --predictions p.tsv "
        "--trainer.accelerator cpu --trainer.enable_progress_bar false"
    )
    assert outcome.status == 0, outcome.err
    table = pd.read_csv("p.tsv", sep="\t")
    deciles = [f"q{level / 10:g}" for level in range(1, 10)]
    assert list(table.columns) == ["series", "window", "stamp", "forecast", *deciles]
    assert table.groupby("series").size().to_dict() == {f"shop {number}": 24 for number in range(3)}
    assert table["stamp"].iloc[0] == "2024-01-11T00:00:00.000000"
    assert (np.diff(table[deciles].to_numpy(), axis=1) >= 0).all()
    model = load_forecaster(panel_run, device="cpu")
    frame = sales().query("unique_id == 'shop 2'")
    stamps = frame["ds"].to_numpy().astype("datetime64[us]")
    point = model.predict(SeriesSet((make_series("s", stamps, frame["y"].to_numpy()),), Frequency("h")), 24)[0].point
    np.testing.assert_allclose(table[table["series"] == "shop 2"]["forecast"], point[:, 0], rtol=1e-5)


def test_a_season_longer_than_the_lookback(command: Any) -> None:
    """The seasonal baseline reads a season at least; every row says what it read."""
    outcome = command("timeseries evaluate --protocol ltsf --data ETTh1 --horizons 96 --lookback 12 --output out")
    assert outcome.status == 0, outcome.err
    assert {row["model"]: row["lookback"] for row in scores()} == {
        "repeat-last": 12, "seasonal-naive": 24, "ridge-nlinear": 12
    }  # fmt: skip
    assert scores()[1]["mse"] == 0.5122


def test_auto_says_why(command: Any, tables: Path) -> None:
    line = "timeseries forecast --data sales.csv --horizon 24 --candidates repeat-last seasonal-naive ridge-nlinear"
    outcome = command(f"{line} naive2 --windows 2 --pictures 0 --output out")
    assert outcome.status == 0, outcome.err
    assert "chosen: ridge-nlinear has the least weighted quantile loss" in outcome.out
    assert "below the next best, seasonal-naive" in outcome.out
    selection = json.loads(Path("out/selection.json").read_text())
    assert [trial["name"] for trial in selection["trials"]] == [
        "ridge-nlinear", "seasonal-naive", "repeat-last", "naive2"
    ]  # fmt: skip
    assert selection["trials"][-1]["problem"] == "it gives no quantiles"
    assert [trial["windows"] for trial in selection["trials"]] == [6, 6, 6, 0]
    assert "ridge-nlinear-lo-80" in pd.read_csv("out/forecast.csv").columns


def test_auto_of_series_of_zeros() -> None:
    """No loss can be weighted by the size of the targets; the first candidate that could be run is taken."""
    zeros = SeriesSet((make_series("a", np.arange(60), np.zeros(60)),), Frequency(1))
    candidates = [("naive2", make_baseline("naive2", lookback=8, horizon=4))]
    candidates.append(("repeat-last", make_baseline("repeat-last", lookback=8, horizon=4)))
    selection = select(zeros, candidates, 4)
    assert (selection.chosen, selection.trials[0].problem) == ("repeat-last", "it gives no quantiles")
    assert "all targets of the back-test are 0" in selection.reason


def test_names_are_of_forecasters() -> None:
    names = known_names()
    assert {"repeat-last", "s4d_patch_forecaster", "ls4"} < set(names)
    assert not {"hiss", "series_classifier"} & set(names)
    assert "head" not in usual_options("ls4")  # it draws samples
    assert usual_options("mamba_forecaster")["head"] == "quantiles"


def test_a_season_of_the_user(command: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"unique_id": "a", "ds": pd.date_range("2024-01-01", periods=21), "y": np.arange(21.0) % 7})
    frame.to_csv("days.csv", index=False)
    line = "timeseries forecast --data days.csv --model seasonal-naive --horizon 7 --pictures 0 --output"
    assert command(f"{line} one --season 7").status == 0
    assert pd.read_csv("one/forecast.csv")["seasonal-naive"].tolist() == list(range(7))
    assert command(f"{line} two").status == 0
    assert pd.read_csv("two/forecast.csv")["seasonal-naive"].tolist() == [6.0] * 7


def test_auto_of_series_too_short_for_a_back_test() -> None:
    data = SeriesSet((make_series("a", np.arange(5), np.arange(5.0)),), Frequency(1))
    selection = select(data, [], 4)
    assert selection.chosen == "repeat-last"
    assert "(at most 5 rows) are too short for a back-test of horizon 4" in selection.reason


def test_covariates_over_the_horizon(command: Any, tmp_path: Path) -> None:
    """They must cover it exactly: missing stamps are listed before anything is trained."""
    frame = sales(series=1).assign(price=1.0)
    frame.to_csv("s.csv", index=False)
    ahead = pd.DataFrame({"unique_id": "shop 0", "ds": pd.date_range("2024-01-11", periods=3, freq="h"), "price": 2.0})
    ahead.iloc[:2].to_csv("ahead.csv", index=False)
    line = "timeseries forecast --data s.csv --future price --horizon 3 --model mamba_forecaster --output out"
    outcome = command(f"{line} --future-data ahead.csv")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "no row for shop 0 2024-01-11 02:00:00; add them" in outcome.err
    outcome = command(line)
    assert "the covariates price are needed for the next 3 steps" in outcome.err


BROKEN: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "a column is missing": (lambda f: f.drop(columns="y"), "present: unique_id, ds; give layout and column names"),
    "a column is misnamed": (lambda f: f.rename(columns={"ds": "time"}), "present: unique_id, time, y"),
    "a date cannot be parsed": (
        lambda f: f.assign(ds=["soon", *f["ds"].astype(str)[1:]]),
        "series 'shop 0', row 1: ds",
    ),
    "mixed zones": (
        lambda f: f.assign(ds=[*(f["ds"].astype(str) + "+00:00")[:-1], "2024-01-10T23:00:00+02:00"]),
        "series 'shop 2', row 720: time zone +02:00 after +00:00",
    ),
    "duplicates": (lambda f: pd.concat([f, f.iloc[[3]]]), "series 'shop 0'"),
    "a gap": (lambda f: f.drop(index=[300, 301]), "series 'shop 1'"),
    "text": (lambda f: f.assign(y=["12,5", *f["y"].astype(str)[1:]]), "series 'shop 0', row 1: y is '12,5'"),
    "infinite": (lambda f: f.assign(y=[*f["y"][:-1], np.inf]), "series 'shop 2', row 720: y is inf"),
    "no frequency": (lambda f: f.iloc[[0, 240]], "no frequency can be inferred"),
    "no rows": (lambda f: f.iloc[:0], "it has a header and no rows"),
    "all missing": (lambda f: f.assign(y=np.where(f["unique_id"] == "shop 1", np.nan, f["y"])), "series 'shop 1'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_tables(command: Any, tmp_path: Path, name: str) -> None:
    """One line that names the series and the row, and nothing is written."""
    change, message = BROKEN[name]
    change(sales()).to_csv("bad.csv", index=False)
    outcome = command("timeseries forecast --data bad.csv --model seasonal-naive --horizon 5 --output out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "bad.csv" in outcome.err
    assert message in outcome.err
    assert not Path("out").exists()


def test_policies_and_an_empty_file(command: Any, tmp_path: Path) -> None:
    """What is an error can be allowed, and is counted; an empty file cannot."""
    frame = sales().drop(index=[300, 301])
    pd.concat([frame, frame.iloc[[3]]]).to_csv("bad.csv", index=False)
    line = "timeseries forecast --data bad.csv --model seasonal-naive --horizon 5 --pictures 0 --output out"
    outcome = command(f"{line} --gaps mask --duplicates last")
    assert outcome.status == 0, outcome.err
    assert "2 steps missing" in outcome.out
    assert "1 duplicates merged" in outcome.out
    Path("bad.csv").write_text("")
    assert "the file is empty" in command(line).err


# backtest


def test_backtest(command: Any, tables: Path) -> None:
    outcome = command(
        "timeseries backtest --data sales.csv --horizon 12 --windows 2 --step 6 --pictures 1 --output out "
        "--model seasonal-naive repeat-last"
    )
    assert outcome.status == 0, outcome.err
    found = pd.read_csv("out/forecasts.csv")
    assert len(found) == 3 * 2 * 12
    errors = (found["y"] - found["seasonal-naive"]).abs()
    windows = pd.read_csv("out/windows.csv").set_index(["model", "window"])
    steps = pd.read_csv("out/steps.csv").set_index(["model", "step"])
    for window in (0, 1):
        expected = errors[found["window"] == window].mean()
        assert windows.loc[("seasonal-naive", window), "mae"] == pytest.approx(expected, abs=1e-5)
    assert steps.loc[("seasonal-naive", 12), "mae"] == pytest.approx(errors[found["step"] == 12].mean(), abs=1e-5)
    inside = found["y"].between(found["repeat-last-lo-80"], found["repeat-last-hi-80"])
    assert windows.loc[("repeat-last", 1), "coverage_80"] == pytest.approx(
        inside[found["window"] == 1].mean(), abs=1e-5
    )
    scale = {
        name: np.abs(part["y"].to_numpy()[24:222] - part["y"].to_numpy()[:198]).mean()
        for name, part in sales().groupby("unique_id")
    }
    scaled = errors / found["unique_id"].map(scale)
    assert windows.loc[("seasonal-naive", 0), "mase"] == pytest.approx(scaled[found["window"] == 0].mean(), abs=1e-5)
    pictures = {path.name for path in Path("out").glob("*.png")}
    assert pictures == {"error_by_step.png", "shop_0.png"}


def test_backtest_tells_of_windows_that_were_trained_on(command: Any, tables: Path, panel_run: Path) -> None:
    line = f"timeseries backtest --data sales.csv --model {panel_run} seasonal-naive --pictures 0 --device cpu"
    outcome = command(f"{line} --windows 2 --output out")
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""  # both windows lie in the rows that fit held out
    outcome = command(f"{line} --windows 3 --output out")
    assert "run was trained on stamps up to 2024-01-08T23:00:00, which lie within the windows" in outcome.err
    assert set(pd.read_csv("out/windows.csv")["model"]) == {"run", "seasonal-naive"}


def test_detect_tells_of_rows_that_were_trained_on(command: Any, tables: Path, panel_run: Path) -> None:
    outcome = command(f"timeseries detect --data sales.csv --model {panel_run} --rate 0.1 --device cpu --output d.csv")
    assert outcome.status == 0, outcome.err
    assert "run was trained on stamps up to 2024-01-08T23:00:00, which lie within the windows" in outcome.err


def test_backtest_refuses(command: Any, tables: Path) -> None:
    outcome = command("timeseries backtest --data sales.csv --horizon 100 --windows 3 --output out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "series 'shop 0' has 240 rows" in outcome.err
    assert "the horizon is not known; give --horizon" in command("timeseries backtest --data sales.csv --output o").err


def test_a_model_of_several_channels_is_back_tested(command: Any, tables: Path, tmp_path: Path) -> None:
    fit = (
        "timeseries fit --model Forecasting --model.model ltsf_nlinear --data LTSFDataModule --data.source wide.csv "
        "--data.lookback 24 --data.horizon 6 --trainer.max_epochs 1 --trainer.accelerator cpu --output run "
        "--trainer.enable_progress_bar false"
    )
    assert command(fit).status == 0
    outcome = command(
        "timeseries backtest --data wide.csv --model run repeat-last --windows 2 --device cpu --output out"
    )
    assert outcome.status == 0, outcome.err
    found = pd.read_csv("out/forecasts.csv")
    assert found["unique_id"].unique().tolist() == ["c0", "c1", "c2"]
    last = found[(found["unique_id"] == "c1") & (found["window"] == 1)]
    model = load_forecaster("run", device="cpu")
    values = wide().iloc[:-6, 1:].to_numpy()
    stamps = wide()["date"].to_numpy().astype("datetime64[us]")[:-6]
    data = SeriesSet((make_series("s", stamps, values),), Frequency("h"), channels=("c0", "c1", "c2"))
    np.testing.assert_allclose(last["run"], model.predict(data, 6)[0].point[:, 1], rtol=1e-6)


def test_names_are_checked(tmp_path: Path) -> None:
    from longscan.timeseries.naming import find_forecaster

    with pytest.raises(UserError, match="no such model or baseline; nearest: mamba_forecaster"):
        find_forecaster("mamba_forcaster", lookback=4, horizon=2)
