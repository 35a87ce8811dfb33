"""Every packaged configuration of time series: it parses, and what it names can be built and trained."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longscan
from longscan.core.model_place import known_options
from longscan.core.training.data import ResumableDataModule
from longscan.core.training.module import TrainingModule
from longscan.core.training.run_files import packaged_configs
from longscan.core.training.verbs import Request, TrainingCLI
from longscan.timeseries import tasks, zero_shot_task  # noqa: F401  (configurations call classes by bare names)
from longscan.timeseries.data import ltsf_windows, series_windows  # noqa: F401  (likewise)
from longscan.timeseries.datasets import dataset_path

#: Forecasters; the configuration of classification has a test of its own.
OTHERS = ("timeseries/classification",)
CONFIGS = {
    name: path for name, path in packaged_configs().items() if name.startswith("timeseries/") and name not in OTHERS
}

#: Parameters of the model that each describes.
PARAMETERS = {
    "timeseries/ltsf_etth1_mamba": 166_216,
    "timeseries/ltsf_etth1_s4d": 143_176,
    "timeseries/ltsf_etth1_smamba": 1_145_696,
    "timeseries/ltsf_etth1_xlstmtime": 1_333_550,
    "timeseries/ltsf_etth2_s4d": 73_976,
    "timeseries/m4_hourly": 320_736,
    "timeseries/m4_weekly": 312_266,
    "timeseries/quickstart": 635_584,
    "timeseries/zero_shot": 2_413_088,
    "timeseries/zero_shot_small": 521_568,
}

#: What makes those quick that are large.
SMALL = dict.fromkeys(
    ("timeseries/zero_shot", "timeseries/zero_shot_small"),
    (
        *("--data.lookbacks", "{96: 1.0}", "--data.horizons", "{24: 1.0}", "--data.batch_size", "2"),
        *("--data.eval_batch_size", "2", "--data.groups", "2", "--data.pool_size", "2"),
        *("--model.schedule", "{name: constant}"),
    ),
)


def parsed(name: str, *more: str) -> Any:
    """What ``fit`` makes of a configuration: trainer, task and data, nothing run."""
    argv = ["--config", str(CONFIGS[name]), "--trainer.accelerator", "cpu", *more]
    request = Request("fit", argv, "timeseries", (), None, name, Path("run"), None, None)
    return TrainingCLI(request, TrainingModule, ResumableDataModule)


def m4_group(folder: Path, group: str, rows: int, horizon: int) -> None:
    """Make up files of M4: three series and what followed them."""
    folder.mkdir(exist_ok=True)
    for kind, count in (("train", rows), ("test", horizon)):
        lines = ["V1,V2"]
        for number in range(3):
            values = np.random.default_rng(number).normal(100, 10, count).round(2)
            lines.append(",".join([f"S{number}", *map(str, values)]))
        (folder / f"{group}-{kind}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that configurations leave to their user, made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["longscan"])
    m4_group(tmp_path / "M4", "Hourly", 700, 48)
    m4_group(tmp_path / "M4", "Weekly", 300, 13)
    (tmp_path / "ETTh2.csv").write_bytes(gzip.decompress(dataset_path("ETTh1").read_bytes()))  # alike but for values


def fitting(cli: Any) -> dict[str, Any]:
    """The options of the model that follow from the data."""
    cli.datamodule.setup("fit")
    cli.model.card = cli.model.describe(cli.datamodule)
    return known_options(cli.model.model_name, cli.model.fitting_options()) | cli.model.options


def test_the_list_is_complete() -> None:
    assert sorted(CONFIGS) == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_can_be_built(name: str) -> None:
    """Classes and options exist, the model has the size meant, and the data are there."""
    cli = parsed(name, *SMALL.get(name, ()))
    options = fitting(cli)
    model = longscan.create_model(cli.model.model_name, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    batch = next(iter(cli.datamodule.train_dataloader()))
    batch = cli.datamodule.transfer_batch_to_device(batch, torch.device("cpu"), 0)
    assert batch["input_ids"].shape[1] == cli.datamodule.lookback
    assert batch["labels"].shape[1] == cli.datamodule.horizon


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_trains(name: str) -> None:
    """One step, an evaluation, and a checkpoint by the metric that it monitors."""
    from longscan.timeseries.training import fit

    line = f"--config {name} --output run --trainer.accelerator cpu --trainer.max_steps 1 --trainer.max_epochs 1"
    line += " --trainer.enable_progress_bar false --trainer.limit_val_batches 1 --trainer.limit_train_batches 1"
    line += " --data.batch_size 2 --data.eval_batch_size 2"
    if "ltsf" in name or "quickstart" in name:
        line += " --data.lookback 48 --data.horizon 24"
    assert fit([*line.split(), *SMALL.get(name, ())]) == 0
    assert (Path("run") / "checkpoints" / "best.ckpt").is_file()
    assert (Path("run") / "model" / "timeseries.json").is_file()


def test_published_recipes() -> None:
    """The numbers of the papers that configurations claim to repeat."""
    cli = parsed("timeseries/ltsf_etth1_smamba")
    options = fitting(cli)
    model: Any = longscan.create_model(cli.model.model_name, **options)
    assert (model.config.d_model, model.config.n_layers, model.config.mixer["d_state"]) == (256, 2, 2)
    assert (cli.datamodule.lookback, cli.datamodule.batch_size, cli.trainer.max_epochs) == (96, 32, 10)
    cli = parsed("timeseries/ltsf_etth1_xlstmtime")
    model = longscan.create_model(cli.model.model_name, **fitting(cli))
    assert (model.config.d_model, model.config.n_layers, model.config.mixer) == (256, 3, "slstm")
    assert (cli.datamodule.lookback, model.config.point_loss) == (512, "mae")
