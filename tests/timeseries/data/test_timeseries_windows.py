"""Data modules: what batches hold, that nothing leaks or is dropped, and that training restarts bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey
from longscan.timeseries.data import LTSFDataModule, SeriesDataModule, SeriesSet, make_series
from longscan.timeseries.data.series import Series
from longscan.timeseries.frequency import Frequency
from longscan.timeseries.tasks import Forecasting
from longscan.timeseries.trained import TrainedForecaster


def counting(lengths: Sequence[int]) -> SeriesSet:
    """Values that say where they are from: series number · 1000 + row."""
    start = np.datetime64("2024-01-01T00", "us")
    return SeriesSet(
        tuple(
            make_series(
                f"s{number}", start + np.arange(rows) * np.timedelta64(1, "h"), 1000.0 * number + np.arange(rows)
            )
            for number, rows in enumerate(lengths)
        ),
        Frequency("h"),
    )


def batches(loader: Any) -> list[dict[str, Any]]:
    return list(loader)


def test_ltsf_batches_are_the_windows_of_the_protocol() -> None:
    module = LTSFDataModule("ETTh1", lookback=96, horizon=192, batch_size=512, calendar=True)
    module.setup("fit")
    assert module.window_counts == {"train": 8353, "val": 2689, "test": 2689}
    inputs, targets = module.data.windows("test", 96, 192)
    found = batches(module.test_dataloader()[0])
    assert sum(len(batch["input_ids"]) for batch in found) == 2689
    assert len(found[-1]["input_ids"]) == 2689 % 512
    assert np.array_equal(torch.cat([b["labels"] for b in found]).numpy(), targets.astype(np.float32))
    assert np.array_equal(torch.cat([b["input_ids"] for b in found]).numpy(), inputs.astype(np.float32))
    assert torch.cat([b["index"] for b in found]).tolist() == list(range(2689))
    assert found[0]["past_covariates"].shape == (512, 96, 4)
    assert found[0]["future_covariates"].shape == (512, 192, 4)
    # Row 11520 is 480 days after 2016-07-01 00:00.
    assert found[0]["future_covariates"][0, 0, 0] == -0.5
    trained = torch.cat([batch["index"] for batch in module.train_dataloader()])
    assert sorted(trained.tolist()) == list(range(8353))  # the last, incomplete batch too


def test_ltsf_lookback_can_grow() -> None:
    module = LTSFDataModule("ETTh1", lookback=96, horizon=96)
    module.setup("fit")
    module.set_stage(336, 64)
    assert len(module.train_set) == 8209
    batch = next(iter(module.train_dataloader()))
    assert batch["input_ids"].shape == (64, 336, 7)
    inputs, _ = module.data.windows("train", 336, 96)
    assert np.array_equal(module.train_set[5]["input_ids"], inputs[5].astype(np.float32))


def test_series_blocks_and_padding() -> None:
    module = SeriesDataModule(
        counting([40, 13]), lookback=8, horizon=3, samples_per_epoch=500, val_windows=2, test_windows=1, batch_size=7
    )
    module.setup("fit")
    test = batches(module.test_dataloader()[0])[0]
    assert test["labels"][:, :, 0].tolist() == [[37, 38, 39], [1010, 1011, 1012]]
    assert test["input_ids"][0, :, 0].tolist() == list(range(29, 37))
    val = batches(module.val_dataloader()[0])[0]
    assert val["labels"][:, 0, 0].tolist() == [31, 34, 1004, 1007]
    assert val["input_ids"][2, :, 0].tolist() == [0, 0, 0, 0, 1000, 1001, 1002, 1003]
    assert val["mask"][2].tolist() == [False] * 4 + [True] * 4
    assert val["observed"][2, :, 0].tolist() == [False] * 4 + [True] * 4
    ahead = batches(module.predict_dataloader())[0]
    assert "labels" not in ahead
    assert ahead["cutoff"].tolist() == [40, 13]
    assert ahead["input_ids"][1, :, 0].tolist() == list(range(1005, 1013))
    # No training target reaches the blocks held out, and both series are drawn.
    train = batches(module.train_dataloader())
    assert sum(len(batch["labels"]) for batch in train) == 500
    labels = torch.cat([batch["labels"] for batch in train])[..., 0]
    assert labels[labels < 1000].max() == 30
    assert labels[labels >= 1000].max() == 1003
    assert labels[labels < 1000].min() == 1
    assert 150 < int((labels[:, 0] >= 1000).sum()) < 350
    assert torch.equal(labels[:, 1] - labels[:, 0], torch.ones(500))


def test_draws_are_a_function_of_seed_epoch_and_index() -> None:
    module, same, other = (SeriesDataModule(counting([99, 99]), 8, 3, seed=seed) for seed in (1, 1, 2))
    for one in (module, same, other):
        one.setup("fit")
    keys = [SampleKey(epoch, index) for epoch in (0, 1) for index in range(20)]
    assert [module.train_set.window(k) for k in keys] == [same.train_set.window(k) for k in keys]
    assert [module.train_set.window(k) for k in keys] != [other.train_set.window(k) for k in keys]
    assert [module.train_set.window(k) for k in keys[:20]] != [module.train_set.window(k) for k in keys[20:]]


def test_training_restarts_in_mid_epoch() -> None:
    def fresh() -> SeriesDataModule:
        module = SeriesDataModule(counting([99, 60]), 8, 3, samples_per_epoch=40, batch_size=8, seed=3)
        module.setup("fit")
        return module

    whole = fresh()
    loader = whole.train_dataloader()
    expected = [batch["cutoff"].tolist() for _ in range(2) for batch in loader]
    first = fresh()
    iterator = iter(first.train_dataloader())
    seen = [next(iterator)["cutoff"].tolist() for _ in range(3)]
    second = fresh()
    second.load_state_dict(first.state_dict())
    loader = second.train_dataloader()
    seen += [batch["cutoff"].tolist() for _ in range(2) for batch in loader]
    assert seen == expected


def test_missing_values_are_masked() -> None:
    values = np.arange(30.0)
    values[[5, 27]] = np.nan
    stamps = np.arange(30)
    module = SeriesDataModule(SeriesSet((make_series("a", stamps, values),), Frequency(1)), 30, 3, test_windows=1)
    module.setup("fit")
    for loader in (*module.test_dataloader(), *module.val_dataloader(), module.train_dataloader()):
        for batch in loader:
            assert torch.isfinite(batch["input_ids"]).all()
            assert torch.isfinite(batch["labels"]).all()
    test = batches(module.test_dataloader()[0])[0]
    assert test["label_mask"][0, :, 0].tolist() == [False, True, True]
    assert int((~test["observed"][0, 3:, 0]).sum()) == 1


def test_covariates_over_lookback_and_horizon() -> None:
    rows = np.arange(30.0)[:, None]
    stamps = np.datetime64("2024-01-01T00", "us") + np.arange(30) * np.timedelta64(1, "h")
    series = Series("a", stamps, rows, 100 + rows, 200 + rows, np.array([7.0]))
    data = SeriesSet((series,), Frequency("h"), historic_names=("h",), future_names=("f",), static_names=("s",))
    module = SeriesDataModule(data, 4, 2, test_windows=1, calendar=True)
    module.setup("fit")
    test = batches(module.test_dataloader()[0])[0]
    assert test["past_covariates"].shape == (1, 4, 6)
    assert test["past_covariates"][0, :, 0].tolist() == [124, 125, 126, 127]
    assert test["past_covariates"][0, :, 1].tolist() == [224, 225, 226, 227]
    assert test["future_covariates"][0, :, 0].tolist() == [228, 229]
    hours = (test["future_covariates"][0, :, 1] + 0.5) * 23
    assert hours.tolist() == pytest.approx([4, 5], abs=1e-5)
    assert test["static"].tolist() == [[7]]
    ahead = batches(module.predict_dataloader())[0]
    assert ((ahead["future_covariates"][0, :, 0] + 0.5) * 23).tolist() == pytest.approx([6, 7], abs=1e-5)


def test_covariates_of_rows_that_do_not_exist_are_the_mean() -> None:
    """In training as in prediction: padding before a short series says nothing of its covariates."""
    series = make_series("a", np.arange(9), np.arange(9.0))
    covariate = 50 + np.arange(9.0)[:, None]
    data = SeriesSet((dataclasses.replace(series, historic=covariate),), Frequency(1), historic_names=("x",))
    module = SeriesDataModule(data, lookback=12, horizon=2)
    module.setup()
    assert module.predict_set is not None
    sample = module.predict_set[0]
    assert np.isnan(sample["past_covariates"][:3]).all()
    assert sample["past_covariates"][3:].ravel().tolist() == covariate.ravel().tolist()
    task = Forecasting("s4d_forecaster", {"d_model": 8, "n_layers": 1})
    task.card = task.describe(module)
    model: Any = longscan.create_model("s4d_forecaster", **task.fitting_options() | task.options)
    model.fit_scaling(torch.from_numpy(series.values), **module.train_set.covariate_rows())
    given = torch.from_numpy(sample["past_covariates"])[None]
    scaled = model.covariates(torch.zeros(1, 12, 1), given, None, None, 2)[0]
    assert scaled[0, :3].eq(0).all()
    assert scaled[0, 3:].ne(0).any()
    first = TrainedForecaster(model.eval(), task.card, "m").predict(data, 2)[0].point
    batch = module.collate([sample])
    answer = model.predict(batch["input_ids"], batch["observed"], past_covariates=batch["past_covariates"]).point
    np.testing.assert_allclose(first, answer[0].numpy(), rtol=1e-6)


def test_a_test_file_follows_the_series(tmp_path: Path) -> None:
    header = ",".join(f'"V{i}"' for i in range(1, 62))
    train, test = tmp_path / "Weekly-train.csv", tmp_path / "Weekly-test.csv"
    train.write_text(header + "\n" + ",".join(["W1", *(str(i) for i in range(60))]) + "\n")
    test.write_text(header + "\n" + ",".join(["W1", *(str(60 + i) for i in range(13))]) + "\n")
    module = SeriesDataModule(str(train), 20, test=str(test), samples_per_epoch=300)
    module.setup("fit")
    assert module.horizon == 13
    found = batches(module.test_dataloader()[0])[0]
    assert found["labels"][0, :, 0].tolist() == list(range(60, 73))
    assert found["input_ids"][0, :, 0].tolist() == list(range(40, 60))
    assert batches(module.val_dataloader()[0])[0]["labels"][0, :, 0].tolist() == list(range(47, 60))
    assert max(float(batch["labels"].max()) for batch in module.train_dataloader()) == 46


def test_errors() -> None:
    with pytest.raises(
        UserError, match=r"series 's1' has 9 rows, 1 rows of history, horizon 3 and 6 rows held out needs"
    ):
        SeriesDataModule(counting([40, 9]), 8, 3, test_windows=1).setup()
    module = SeriesDataModule(counting([40, 9]), 8, 3, test_windows=1, short_series="drop")
    module.setup()
    assert module.data.report.dropped_series == ("s1",)
    with pytest.raises(UserError, match="has no horizon of its own"):
        SeriesDataModule(counting([40]), 8).setup()
    with pytest.raises(UserError, match="lookback=0 must be at least 1"):
        SeriesDataModule(counting([40]), 0, 3)
    numbered = SeriesSet((make_series("a", np.arange(40), np.arange(40.0)),), Frequency(1))
    with pytest.raises(UserError, match="calendar features need dates"):
        SeriesDataModule(numbered, 8, 3, calendar=True).setup()
