"""Training on synthetic series: the same batches after a restart, masks, the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_runs import Command

from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey
from longscan.timeseries.zero_shot_data import DrawKeys, SyntheticDataModule

QUICK: dict[str, Any] = {"lookbacks": {48: 1.0, 96: 1.0}, "horizons": {12: 1.0, 24: 1.0}, "groups": 2, "pools": 4,
                         "pool_size": 6, "weights": {"sawtooth": 1.0, "structural": 1.0}}  # fmt: skip


def batches(module: SyntheticDataModule) -> list[dict[str, torch.Tensor]]:
    """A whole epoch, as training meets it."""
    return [module.draw(batch["keys"]) for batch in module.train_dataloader()]


def made(**options: Any) -> SyntheticDataModule:
    module = SyntheticDataModule(**QUICK | {"batch_size": 8, "samples_per_epoch": 40, "val_samples": 12} | options)
    module.setup()
    return module


def test_a_batch() -> None:
    found = batches(made())
    assert len(found) == 5
    assert {batch["input_ids"].shape[1] for batch in found} == {48, 96}
    assert {batch["labels"].shape[1] for batch in found} == {12, 24}
    for batch in found:
        assert batch["input_ids"].shape == batch["observed"].shape == (8, batch["input_ids"].shape[1], 1)
        assert batch["labels"].shape == batch["label_mask"].shape
        assert batch["observed"][:, -1].all()
        assert (batch["input_ids"][~batch["observed"]] == 0).all()
        assert batch["input_ids"].isfinite().all()
        assert batch["labels"].isfinite().all()
    assert sorted(torch.cat([batch["index"] for batch in found]).tolist()) == list(range(40))


def test_batches_are_a_function_of_seed_and_place() -> None:
    first, again, other = batches(made()), batches(made(num_workers=2)), batches(made(seed=1))
    for one, two in zip(first, again, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one["labels"], two["labels"]) for one, two in zip(first, other, strict=True))
    module = made()
    before, after = batches(module), batches(module)  # the next epoch has series of its own
    assert not any(torch.equal(one["labels"], two["labels"]) for one, two in zip(before, after, strict=True))


def test_resumed_in_mid_epoch() -> None:
    module = made()
    whole = batches(module)
    resumed = made()
    resumed.load_state_dict(
        {"epoch": 0, "batch": 3, "seed": 0, "batch_size": 8, "world_size": 1, "samples": 40, "stage": None}
    )
    rest = batches(resumed)
    assert len(rest) == 2
    for one, two in zip(whole[3:], rest, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_validation_is_apart_and_fixed() -> None:
    module = made()
    drawn = [[module.draw(batch["keys"]) for batch in module.val_dataloader()[0]] for _ in range(2)]
    assert [len(batch["index"]) for batch in drawn[0]] == [8, 4]
    for one, two in zip(*drawn, strict=True):
        assert torch.equal(one["labels"], two["labels"])
        assert one["input_ids"].shape[1:] == (96, 1)
        assert one["labels"].shape[1:] == (24, 1)
    keys = torch.tensor([[0, 0, 0]] * 8)
    assert not torch.equal(module.draw(keys)["labels"][:, :12], drawn[0][0]["labels"][:, :12])


def test_far_targets_are_left_out() -> None:
    """A history without any deviation has none that could be known."""
    module = made(weights={"steps": 1.0}, pool_size=64)
    batch = module.draw(torch.tensor([[0, 0, number] for number in range(64)]))
    past, observed = batch["input_ids"].double(), batch["observed"]
    mean = (past * observed).sum(1, keepdim=True) / observed.sum(1, keepdim=True)
    spread = (((past - mean) * observed).square().sum(1, keepdim=True) / observed.sum(1, keepdim=True)).sqrt()
    far = (batch["labels"] - mean).abs() > 13 * spread + 1e-6 * mean.abs()
    assert not (far & batch["label_mask"]).any()
    assert batch["label_mask"].float().mean() > 0.8


def test_keys() -> None:
    keys = DrawKeys(1, 4)
    assert keys[SampleKey(2, 3)].tolist() == [1, 2, 3]
    assert keys[0].dtype == np.int64
    with pytest.raises(IndexError, match="window 4 of 4"):
        keys[4]


@pytest.mark.parametrize(
    "options, told",
    [
        ({"lookbacks": {8: 1.0}}, "histories need 24 steps"),
        ({"horizons": {0: 1.0}}, "need lengths of 1 or more"),
        ({"horizons": {12: 0.0}}, "some of them positive"),
        ({"weights": {"sine": 1.0}}, "prior 'sine' is unknown"),
        ({"val_samples": 0}, "val_samples=0"),
        ({"pool_size": 0}, "pool_size=0"),
    ],
)
def test_mistakes(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        made(**options)


LINE = (
    "timeseries fit --config timeseries/zero_shot --output run --trainer.accelerator cpu --trainer.max_steps 2 "
    "--trainer.precision 32 --trainer.enable_progress_bar false --data.batch_size 4 --data.eval_batch_size 4 "
    "--data.val_samples 4 --data.samples_per_epoch 8 --data.groups 1 --data.pools 2 --data.pool_size 4 "
    "--model.schedule.warmup_fraction 0"
)


def test_fit_and_forecast(command: Command, tmp_path: Path) -> None:
    """A run by the packaged configuration forecasts a table of another frequency, gaps and all."""
    more = "--data.lookbacks '{48: 1.0}' --data.horizons '{12: 1.0}' --data.weights '{sawtooth: 1.0}'"
    found = command(f"{LINE} {more} --model.options '{{d_model: 16, n_layers: 1}}'")
    assert found.status == 0, found.err
    card = json.loads((tmp_path / "run/model/timeseries.json").read_text())
    assert (card["lookback"], card["horizon"], card["frequency"], card["std"]) == (48, 12, None, None)
    rows = [f"a,2024-01-{day + 1:02d},{100 + day % 7}" for day in range(30)]
    rows[11] = "a,2024-01-12,"
    (tmp_path / "table.csv").write_text("unique_id,ds,y\n" + "\n".join(rows) + "\n")
    found = command("timeseries forecast --data table.csv --model run --horizon 20 --pictures 0 --output out")
    assert found.status == 0, found.err
    lines = (tmp_path / "out/forecast.csv").read_text().splitlines()
    assert lines[0] == "unique_id,ds,run,run-lo-80,run-hi-80,run-lo-95,run-hi-95"
    assert len(lines) == 21
    values = np.array([[float(cell) for cell in line.split(",")[2:]] for line in lines[1:]])
    assert np.isfinite(values).all()
    assert (np.diff(values[:, [3, 1, 0, 2, 4]], axis=1) >= 0).all()


def test_wrong_data_and_model(command: Command) -> None:
    found = command(
        "timeseries fit --config timeseries/quickstart --output run --trainer.accelerator cpu "
        "--model ZeroShotForecasting --model.model zero_shot_forecaster"
    )
    assert found.status == 2
    assert "needs a SyntheticDataModule" in found.err
    found = command(f"{LINE} --model.model s4d_patch_forecaster --data.weights '{{sawtooth: 1.0}}'")
    assert found.status == 2
    assert "reads windows of one length" in found.err
