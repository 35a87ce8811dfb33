"""Training under the long-term protocol and on panels: what is learned from, what is measured, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.core.training.callbacks import BestCheckpoint
from longscan.core.training.optimizer import OptimizerConfig
from longscan.timeseries.card import TimeSeriesCard
from longscan.timeseries.data import LTSFDataModule, SeriesDataModule, make_series
from longscan.timeseries.data.series import SeriesSet
from longscan.timeseries.frequency import Frequency
from longscan.timeseries.ltsf import evaluate_ltsf, load_ltsf
from longscan.timeseries.metrics import coverage, weighted_quantile_loss
from longscan.timeseries.metrics.probabilistic import DECILES
from longscan.timeseries.tasks import Forecasting, ValidateFirst
from longscan.timeseries.tasks.best_weights import BestWeights
from longscan.timeseries.tasks.linear_start import start_linear
from longscan.timeseries.tasks.metrics import ForecastMetrics
from longscan.timeseries.trained import TrainedForecaster, load_forecaster

NLINEAR = "ltsf_nlinear"


def fitted(data: Any, model: str = NLINEAR, options: dict[str, Any] | None = None, **more: Any) -> Forecasting:
    """A task after a few steps, with its trainer."""
    torch.manual_seed(0)
    task = Forecasting(model, options, optimizer=OptimizerConfig(lr=1e-2, weight_decay=0.0), **more)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    return task


def protocol(tables: Path, **options: Any) -> LTSFDataModule:
    settings: dict[str, Any] = {"lookback": 24, "horizon": 12, "batch_size": 64, "eval_batch_size": 128}
    return LTSFDataModule(str(tables / "wide.csv"), **settings | options)


def test_the_start_is_kept_where_training_only_harms(tables: Path, tmp_path: Path) -> None:
    """The ridge solution is validated before the first step, of models of points; a resumed run does not repeat it."""
    options: dict[str, Any] = {"d_model": 8, "n_layers": 1, "patch": 8, "linear_skip": True}

    def run(folder: Path, epochs: int = 1, ckpt_path: Path | None = None, **more: Any) -> tuple[Forecasting, Any]:
        torch.manual_seed(0)
        task = Forecasting("s4d_patch_forecaster", options | more, linear_start=True, optimizer=OptimizerConfig(lr=0.3))
        best = BestCheckpoint("val/mse", folder=str(folder))
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[best, ValidateFirst()], default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(task, datamodule=protocol(tables), ckpt_path=ckpt_path)
        trainer.save_checkpoint(folder / "last.ckpt")
        return task, torch.load(best.best_model_path, weights_only=False)

    task, kept = run(tmp_path / "one")
    assert task.trainer.global_step > 0
    assert kept["global_step"] == 0
    assert kept["longscan"]["model"]["timeseries"]["deviation"] is not None
    data = protocol(tables)
    data.setup()
    model: Any = longscan.create_model("s4d_patch_forecaster", lookback=24, horizon=12, **options)
    start_linear(model, data)
    torch.testing.assert_close(kept["state_dict"]["model.skip.weight"], model.skip.weight.detach())
    _, later = run(tmp_path / "one", 2, tmp_path / "one" / "last.ckpt")
    assert later["global_step"] == 0
    # Quantiles start untrained: however good the points, the start is no choice.
    _, other = run(tmp_path / "two", head="quantiles")
    assert other["global_step"] > 0


def test_the_start_sees_nothing_of_series_that_are_held_out_whole() -> None:
    generator = np.random.default_rng(0)
    long, short = generator.normal(size=200), generator.normal(size=40)
    weights = []
    for held_out in (short, short**3):
        parts = tuple(make_series(f"s{n}", np.arange(len(one)), one) for n, one in enumerate((long, held_out)))
        data = SeriesDataModule(SeriesSet(parts, Frequency(1)), 12, 10, test_windows=4, short_series="keep")  # 50 rows
        data.setup()
        model: Any = longscan.create_model(
            "s4d_patch_forecaster", lookback=12, horizon=10, d_model=8, n_layers=1, patch=4, linear_skip=True
        )
        start_linear(model, data)
        weights.append(model.skip.weight.detach().clone())
    assert torch.equal(*weights)


def test_a_model_that_needs_the_number_of_its_channels() -> None:
    """What the data does not say is left to the model's own default."""
    task = Forecasting("ls4")
    task.card = TimeSeriesCard(lookback=8, horizon=4)
    assert "variates" not in task.fitting_options()


def test_validation_is_that_of_the_protocol(tables: Path) -> None:
    """Logged errors are of scaled values over every window of the validation split, whatever the batch size."""
    task = fitted(protocol(tables))
    logged = task.trainer.callback_metrics
    data = load_ltsf(tables / "wide.csv")

    def forecast(inputs: np.ndarray) -> np.ndarray:
        past = torch.from_numpy(inputs * data.std + data.mean)
        return (task.model.predict(past).point.numpy() - data.mean) / data.std  # type: ignore[operator]

    score = evaluate_ltsf(forecast, data, 24, 12, "val")
    assert logged["val/windows"] == score.windows == 29
    assert float(logged["val/mse"]) == pytest.approx(score.mse, rel=1e-5)
    assert float(logged["val/mae"]) == pytest.approx(score.mae, rel=1e-5)
    # The loss of a point head, in units of the training rows' deviation, is the protocol's error.
    assert float(logged["val/loss"]) == pytest.approx(score.mse, rel=1e-5)
    task.trainer.validate(task, datamodule=protocol(tables, eval_batch_size=7), verbose=False)
    assert float(task.trainer.callback_metrics["val/mse"]) == pytest.approx(score.mse, rel=1e-6)


def test_nothing_is_learned_from_later_rows(tables: Path) -> None:
    """Weights, scales and card are the same whatever follows the training rows."""
    first = fitted(protocol(tables))
    frame = pd.read_csv(tables / "wide.csv")
    frame.iloc[280:, 1:] *= 7  # 70 % of 400
    frame.to_csv(tables / "wide.csv", index=False)
    second = fitted(protocol(tables))
    for (name, one), two in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    assert isinstance(first.card, TimeSeriesCard)
    assert isinstance(second.card, TimeSeriesCard)
    assert (first.card.mean, first.card.std) == (second.card.mean, second.card.std)
    assert first.card.trained_until == "2020-01-12T15:00:00"
    model: Any = first.model
    assert model.scaling.std.tolist() == pytest.approx(list(first.card.std or ()), rel=1e-12)


def test_one_channel_of_several_is_scored(tables: Path) -> None:
    """``MS`` reads all channels, and its loss and errors are of the last one."""
    task = fitted(protocol(tables, features="MS", target="c1"))
    data = load_ltsf(tables / "wide.csv", features="MS", target="c1")
    assert task.card is not None
    assert task.card.channels == ("c0", "c2", "c1")
    inputs, targets = data.windows("val", 24, 12)
    past = torch.from_numpy(inputs * data.std + data.mean)
    point = task.model.predict(past).point.numpy()[:, :, -1:]  # type: ignore[operator]
    error = (point - data.mean[-1]) / data.std[-1] - targets
    logged = task.trainer.callback_metrics
    assert float(logged["val/mse"]) == pytest.approx((error**2).mean(), rel=1e-5)
    assert float(logged["val/loss"]) == pytest.approx((error**2).mean(), rel=1e-5)


def panel(rows: int = 120) -> SeriesSet:
    generator = np.random.default_rng(0)
    found = []
    for number in range(4):
        values = (number + 1) * (20 + np.sin(np.arange(rows) * np.pi / 4) + generator.normal(size=rows) / 5)
        values[generator.integers(rows - 30, rows, 4)] = np.nan
        found.append(make_series(f"s{number}", np.arange(rows), values))
    return SeriesSet(tuple(found), Frequency(1), season_length=8)


def test_a_panel_is_measured_where_it_was_observed() -> None:
    module = SeriesDataModule(panel(), 16, 8, samples_per_epoch=64, batch_size=16, eval_batch_size=3)
    task = fitted(module, options={"head": "quantiles", "loss_units": "window"})
    targets, quantiles = [], []
    for series in panel():
        past = torch.from_numpy(series.values[None, -24:-8])
        answer = task.model.predict(past, levels=DECILES)  # type: ignore[operator]
        targets.append(series.values[-8:, 0])
        quantiles.append(answer.quantiles.numpy()[:, 0, :, 0])
    truth, forecast = np.stack(targets), np.stack(quantiles, 1)
    assert np.isnan(truth).any()
    logged = {name: float(value) for name, value in task.trainer.callback_metrics.items()}
    assert logged["val/windows"] == 4
    assert logged["val/wql"] == pytest.approx(weighted_quantile_loss(truth, forecast, DECILES), rel=1e-5)
    assert logged["val/coverage_80"] == pytest.approx(coverage(truth, forecast[0], forecast[-1]), abs=1e-6)
    assert logged["val/nd"] == pytest.approx(
        np.nansum(np.abs(truth - forecast[4])) / np.nansum(np.abs(truth)), rel=1e-5
    )
    assert task.card is not None
    assert (task.card.season, task.card.frequency, task.card.trained_until) == (8, 1, 111)


def test_metrics_of_batches_of_unequal_size() -> None:
    generator = torch.Generator().manual_seed(0)
    target, point = (torch.randn(5, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    known = torch.rand(5, 3, 2, generator=generator) < 0.7
    unit, own = torch.tensor([2.0, 4.0]), torch.full((5, 1, 2), 0.5)
    metrics = ForecastMetrics("val", 3, 2, False)
    for rows in (slice(0, 1), slice(1, 5)):
        loss = ((point - target)[rows] ** 2)[known[rows]].mean()
        metrics.update(loss, point[rows], target[rows], known[rows], unit, own[rows])
    found = metrics.compute()
    scaled = ((point - target) / unit)[known]
    assert float(found["mse"]) == pytest.approx(float((scaled**2).mean()))
    assert float(found["mae"]) == pytest.approx(float(scaled.abs().mean()))
    assert float(found["loss"]) == pytest.approx(float(((point - target)[known] ** 2).mean()))
    assert float(found["windows"]) == 5
    step, channel = 1, 1
    errors = ((point - target)[:, step, channel][known[:, step, channel]] / 0.5).square().mean().sqrt()
    assert metrics.deviation()[step][channel] == pytest.approx(float(errors))
    with pytest.raises(UserError, match="the val set has no observed target"):
        ForecastMetrics("val", 3, 2, False).compute()


def test_metrics_of_deciles() -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(5, 1, (50, 4, 1))
    quantiles = np.sort(generator.normal(5, 1, (9, 50, 4, 1)), axis=0)
    known = generator.random(target.shape) < 0.8
    metrics = ForecastMetrics("val", 4, 1, True)
    one = torch.ones(1)
    tensors = [torch.from_numpy(part) for part in (quantiles[4], target, known)]
    metrics.update(one[0], *tensors, one, one, torch.from_numpy(quantiles))
    found, truth = metrics.compute(), np.where(known, target, np.nan)
    assert float(found["coverage_80"]) == pytest.approx(coverage(truth, quantiles[0], quantiles[8]), abs=1e-6)
    assert float(found["wql"]) == pytest.approx(weighted_quantile_loss(truth, quantiles, DECILES), rel=1e-6)


def test_the_best_weights_come_back() -> None:
    """Those of the validation with the least loss, whatever came later."""
    module = torch.nn.Linear(1, 1)
    best = BestWeights()
    for step, loss in enumerate((3.0, 1.0, 2.0)):
        torch.nn.init.constant_(module.weight, step)
        module.card = step  # type: ignore[assignment]
        trainer: Any = SimpleNamespace(callback_metrics={"val/loss": loss, "train/loss": 0.0}, global_step=step)
        best.on_validation_end(trainer, module)  # type: ignore[arg-type]
    best.restore(module)
    assert (float(module.weight), module.card) == (1.0, 1)
    assert [values for _, values in best.history] == [{"val/loss": 3.0}, {"val/loss": 1.0}, {"val/loss": 2.0}]


def test_covariates_reach_the_model() -> None:
    """Historic, future-known, static and calendar columns: the model is made for them, and they are standardised."""
    rows = 100
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b"], rows),
            "ds": np.tile(pd.date_range("2024-01-01", periods=rows, freq="h"), 2),
            "y": np.random.default_rng(0).normal(size=2 * rows),
            "load": np.arange(2 * rows, dtype=float),
            "price": np.tile([1000.0, 1004.0], rows),
            "kind": np.repeat(["north", "south"], rows),
        }
    )
    module = SeriesDataModule(
        frame,
        16,
        8,
        reading={"columns": {"historic": ["load"], "future": ["price"], "static": ["kind"]}},
        calendar=True,
        samples_per_epoch=32,
        batch_size=8,
    )
    task = fitted(module, "mamba_forecaster", {"d_model": 8, "n_layers": 1})
    config: Any = task.model.config
    assert (config.past_covariates, config.future_covariates, config.static_covariates) == (2 + 4, 1 + 4, 1)
    scaling: Any = task.model.covariate_scaling  # type: ignore[assignment]
    assert scaling["past"].mean[1] == pytest.approx(1002.0)
    assert scaling["past"].std[1] == pytest.approx(2.0)
    assert task.card is not None
    assert task.card.columns.future == ("price",)
    with pytest.raises(UserError, match=r"reading.columns has no 'histori' \(nearest: historic"):
        SeriesDataModule(frame, 16, 8, reading={"columns": {"histori": []}})


def test_a_run_is_kept_with_its_card(panel_run: Path) -> None:
    """Checkpoint and folder forecast alike, and the card says what they were trained on."""
    card = TimeSeriesCard.read(panel_run / "model")
    assert card == TimeSeriesCard.read(panel_run / "checkpoints" / "best.ckpt")
    assert card is not None
    assert (card.frequency, card.season, card.lookback, card.horizon) == ("h", 24, 48, 24)
    assert card.trained_until == "2024-01-08T23:00:00"  # two blocks of 24 rows before the end of ten days
    metrics = json.loads((panel_run / "metrics.json").read_text())
    assert metrics["best"]["monitor"] == "val/loss"
    found = [load_forecaster(place, device="cpu") for place in (panel_run, panel_run / "checkpoints" / "best.ckpt")]
    assert [one.name for one in found] == ["run", "run"]
    first, second = (one.predict(one_panel(), 24, (0.1, 0.5, 0.9)) for one in found)
    for one, two in zip(first, second, strict=True):
        assert np.array_equal(one.point, two.point)
        assert (np.diff(one.quantiles, axis=0) >= 0).all()  # type: ignore[arg-type]


def one_panel() -> SeriesSet:
    stamps = np.datetime64("2024-02-01", "us") + np.arange(100) * np.timedelta64(1, "h")
    values = 5 + np.sin(np.arange(100) * np.pi / 12)
    return SeriesSet((make_series("a", stamps, values), make_series("b", stamps[:20], values[:20])), Frequency("h"))


def test_forecasts_do_not_depend_on_the_batch(panel_run: Path) -> None:
    together, alone = (load_forecaster(panel_run, device="cpu", batch_size=size) for size in (2, 1))
    for one, two in zip(together.predict(one_panel(), 24), alone.predict(one_panel(), 24), strict=True):
        np.testing.assert_allclose(one.point, two.point, rtol=1e-6)


def test_a_short_history_is_padded_in_front(panel_run: Path) -> None:
    model = load_forecaster(panel_run, device="cpu")
    short = one_panel()[1].values
    past = np.concatenate([np.full((28, 1), np.nan), short])
    answer = model.model.predict(torch.from_numpy(past[None]), horizon=24)
    np.testing.assert_allclose(model.predict(one_panel(), 24)[1].point, answer.point[0].numpy(), rtol=1e-6)


def test_what_a_trained_model_refuses(panel_run: Path) -> None:
    model = load_forecaster(panel_run, device="cpu")
    daily = one_panel().replace(one_panel().series, frequency=Frequency("D"))
    with pytest.raises(UserError, match="its steps are D, the model was trained on h"):
        model.predict(daily, 24)
    with pytest.raises(UserError, match="horizons up to 24, not 25"):
        model.predict(one_panel(), 25)
    blank = one_panel().replace([make_series("x", one_panel()[0].stamps, np.full(100, np.nan))])
    with pytest.raises(UserError, match="series 'x' has no observed value to forecast from"):
        model.predict(blank, 24)
    with pytest.raises(UserError, match="there is no such file or folder"):
        load_forecaster(panel_run / "nothing.ckpt")


def test_cards_are_read_strictly() -> None:
    card = TimeSeriesCard(lookback=4, horizon=2, deviation=((0.5, 1.0), (2.0, 3.0)), channels=("a", "b"))
    assert TimeSeriesCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    with pytest.raises(UserError, match=r"timeseries.json: unknown entry 'horizn' \(nearest: horizon"):
        TimeSeriesCard.from_dict({"lookback": 1, "horizn": 2})
    with pytest.raises(UserError, match="has no horizon; add it"):
        TimeSeriesCard.from_dict({"lookback": 1})


def test_a_model_that_reads_the_calendar_under_the_protocol(tables: Path, tmp_path: Path) -> None:
    """Named features alone; ``evaluate_ltsf`` tells it where windows are, and gives the scores of ``test``."""
    data = protocol(tables, lookback=48, calendar=["hour"])
    options = {"d_model": 8, "n_layers": 1, "linear_skip": True, "cycle": 24}
    task = fitted(data, "s4d_patch_forecaster", options, linear_start=True)
    assert task.card is not None
    assert task.card.calendar == ("hour",)
    assert TimeSeriesCard.from_dict(task.card.to_dict()) == task.card
    assert task.model.config.past_covariates == task.model.config.future_covariates == 1
    (tested,) = task.trainer.test(task, datamodule=data, verbose=False)
    trained = TrainedForecaster(task.model.eval(), task.card, "it", batch_size=7)
    score = evaluate_ltsf(trained.ltsf_forecaster(data.data, 12), data.data, 48, 12)
    assert score.mse == pytest.approx(tested["test/mse"], rel=1e-5)
    assert score.windows == tested["test/windows"]
    shifted = evaluate_ltsf(lambda inputs: trained.ltsf_forecaster(data.data, 12)(
        inputs, data.data.borders.val - 5 + np.arange(len(inputs))), data.data, 48, 12, batch_size=10_000)  # fmt: skip
    assert shifted.mse > 1.2 * score.mse
    with pytest.raises(UserError, match=r"calendar: 'hours' is no feature of steps of h \(nearest: hour"):
        protocol(tables, calendar=["hours"]).setup()
