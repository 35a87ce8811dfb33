"""The estimator: tables in, tables out, and the same forecasts after it was saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from series_tables import sales

from longscan.core.errors import UserError
from longscan.timeseries.data import Columns
from longscan.timeseries.estimator import TimeSeriesForecaster

TINY = {"max_steps": 20, "batch_size": 16, "options": {"d_model": 8, "n_layers": 1, "patch": 8}}


def tiny(**more: object) -> TimeSeriesForecaster:
    return TimeSeriesForecaster("s4d_patch_forecaster", 24, 48, device="cpu", **TINY | more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted() -> TimeSeriesForecaster:
    return tiny().fit(sales())


def test_forecasts_with_intervals(fitted: TimeSeriesForecaster) -> None:
    found = fitted.predict(12, level=[80, 95], quantiles=[0.3])
    name = "s4d_patch_forecaster"
    bounds = [f"{name}-{end}" for end in ("lo-95", "lo-80", "q0.3", "hi-80", "hi-95")]
    assert set(found.columns) == {"unique_id", "ds", name, *bounds}
    assert found.groupby("unique_id").size().tolist() == [12, 12, 12]
    assert found["ds"].iloc[0] == pd.Timestamp("2024-01-11")
    assert (np.diff(found[bounds].to_numpy(), axis=1) >= 0).all()
    for shop, part in found.groupby("unique_id"):  # original units
        level = sales().set_index("unique_id").loc[shop, "y"].mean()
        assert part[name].mean() == pytest.approx(level, rel=0.2)
    assert len(fitted.predict()) == 3 * 24
    later = sales(300).query("unique_id == 'shop 1'")
    assert fitted.predict(2, df=later)["ds"].iloc[0] == pd.Timestamp("2024-01-13 12:00")


def test_training_is_repeatable_and_chosen_on_validation(fitted: TimeSeriesForecaster) -> None:
    again = tiny().fit(sales())
    pd.testing.assert_frame_equal(again.predict(level=[80]), fitted.predict(level=[80]))
    history = again.forecaster.history
    assert [step for step, _ in history] == list(range(0, 21, 2))
    losses = [values["val/loss"] for _, values in history]
    again.forecaster.trained.model.eval()
    from longscan.timeseries.data import SeriesDataModule

    module = SeriesDataModule(again.data, 48, 24)
    module.setup()
    batch = module.collate([module.val_set[index] for index in range(3)])
    loss = again.forecaster.trained.model.loss(
        batch["input_ids"], batch["labels"], batch["observed"], batch["label_mask"]
    )
    assert float(loss) == pytest.approx(min(losses), rel=1e-5)
    other = tiny(seed=1).fit(sales())
    assert not np.allclose(other.predict().iloc[:, 2], fitted.predict().iloc[:, 2])


def test_cross_validation_sees_nothing_of_its_windows() -> None:
    frame = sales()
    found = tiny().cross_validation(frame, n_windows=2, level=[80])
    assert list(found.columns[:5]) == ["unique_id", "ds", "cutoff", "step", "y"]
    assert sorted(found["window"].unique()) == [0, 1]
    assert len(found) == 2 * 3 * 24
    changed = frame.copy()
    changed.loc[changed.groupby("unique_id").tail(24).index, "y"] += 1000
    other = tiny().cross_validation(changed, n_windows=2, level=[80])
    pd.testing.assert_series_equal(found["s4d_patch_forecaster"], other["s4d_patch_forecaster"])


@pytest.mark.parametrize("model", ["s4d_patch_forecaster", "seasonal-naive", "ridge-nlinear"])
def test_saved_and_loaded(model: str, tmp_path: Path, fitted: TimeSeriesForecaster) -> None:
    one = fitted if model == "s4d_patch_forecaster" else TimeSeriesForecaster(model, 24).fit(sales())
    one.save(tmp_path / "saved")
    two = TimeSeriesForecaster.load(tmp_path / "saved", device="cpu")
    pd.testing.assert_frame_equal(one.predict(level=[80]), two.predict(level=[80]))


def test_names_of_columns_and_covariates(tmp_path: Path) -> None:
    frame = sales(series=2).rename(columns={"unique_id": "shop", "ds": "hour", "y": "sold"})
    frame["price"] = np.tile(np.r_[np.ones(120), 2 * np.ones(120)], 2)
    columns = Columns("shop", "hour", "sold", future=("price",))
    model = TimeSeriesForecaster(
        "mamba_forecaster", 6, 24, columns=columns, device="cpu", max_steps=4, options={"d_model": 8, "n_layers": 1}
    ).fit(frame)
    with pytest.raises(UserError, match="the covariates price are needed"):
        model.predict()
    ahead = pd.DataFrame(
        {
            "shop": np.repeat(["shop 0", "shop 1"], 6),
            "hour": np.tile(pd.date_range("2024-01-11", periods=6, freq="h"), 2),
            "price": 1.0,
        }
    )
    first = model.predict(future=ahead)
    assert list(first.columns) == ["shop", "hour", "mamba_forecaster"]
    assert not np.allclose(first.iloc[:, 2], model.predict(future=ahead.assign(price=2.0)).iloc[:, 2])
    with pytest.raises(UserError, match="no row for shop 1 2024-01-11 05:00:00"):
        model.predict(future=ahead.iloc[:-1])
    model.save(tmp_path / "saved")
    loaded = TimeSeriesForecaster.load(tmp_path / "saved", device="cpu")
    pd.testing.assert_frame_equal(loaded.predict(future=ahead), first)


def test_what_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its training has no argument 'max_stepz'; nearest: max_steps"):
        TimeSeriesForecaster("s4d_patch_forecaster", 6, max_stepz=3).fit(sales())
    with pytest.raises(UserError, match="naive2 gives points alone, so no intervals"):
        TimeSeriesForecaster("naive2", 6).fit(sales()).predict(level=[80])
    with pytest.raises(UserError, match="not fitted yet; call fit first"):
        TimeSeriesForecaster().predict()
    with pytest.raises(UserError, match="no such model or baseline; nearest: seasonal-naive"):
        TimeSeriesForecaster("seasonal-naiv").fit(sales())
    with pytest.raises(UserError, match="no estimator was saved there"):
        TimeSeriesForecaster.load(tmp_path)
    with pytest.raises(UserError, match="h=0 must be at least 1"):
        TimeSeriesForecaster("repeat-last").fit(sales()).predict(0)
    with pytest.raises(UserError, match="has no option 'widht'; known: affine, "):
        tiny(options={"widht": 3}).fit(sales())
