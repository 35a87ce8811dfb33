"""Every packaged configuration of the audio domain: it parses, and what it names can be built and asked."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import longscan
from longscan.audio import tasks  # noqa: F401  (configurations call classes by bare names)
from longscan.audio.data import autoregressive, classification, compression, waveforms  # noqa: F401  (likewise)
from longscan.audio.data.sources import SC09, SC10
from longscan.core.model_place import known_options
from longscan.core.training.data import ResumableDataModule
from longscan.core.training.module import TrainingModule
from longscan.core.training.run_files import packaged_configs
from longscan.core.training.verbs import Request, TrainingCLI

CONFIGS = {name: path for name, path in packaged_configs().items() if name.startswith("audio/")}

#: Parameters of the model that each describes; DiffWave has the published number.
PARAMETERS = {
    "audio/compressor": 20_633,
    "audio/diffwave": 23_470_971,
    "audio/digits_leave_one_out": 623_370,
    "audio/digits_official": 623_370,
    "audio/quickstart": 64_476,
    "audio/quickstart_digits": 36_938,
    "audio/sashimi_digits_ar": 1_469_968,
    "audio/speech_commands_10": 303_626,
    "audio/speech_commands_35": 306_851,
}


def parsed(name: str, *more: str) -> Any:
    """What ``fit`` makes of a configuration: trainer, task and data, nothing run."""
    argv = ["--config", str(CONFIGS[name]), "--trainer.accelerator", "cpu", *more]
    request = Request("fit", argv, "audio", (), None, name, Path("run"), None, None)
    return TrainingCLI(request, TrainingModule, ResumableDataModule)


def speech_commands(folder: Path, words: tuple[str, ...]) -> None:
    """Make up an unpacked Speech Commands: three clips of each word, one of them for each split."""
    for word in words:
        (folder / word).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng(number).normal(size=900) / 10
            soundfile.write(folder / word / f"s{number}_nohash_0.wav", noise, 16000, subtype="PCM_16")
    for number, name in ((1, "validation_list.txt"), (2, "testing_list.txt")):
        (folder / name).write_text("".join(f"{word}/s{number}_nohash_0.wav\n" for word in words))


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that configurations leave to their user, made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["longscan"])
    words = (*SC09, *SC10, *(f"word{number}" for number in range(15)))
    speech_commands(tmp_path / "speech_commands", words)
    (tmp_path / "programme").mkdir()
    rows = ["path,split"]
    for number in range(10):
        noise = np.random.default_rng(number).normal(size=9000) / 10
        soundfile.write(tmp_path / "programme" / f"{number}.wav", noise, 44100, subtype="PCM_16")
        rows.append(f"{number}.wav,{'test' if number == 9 else 'val' if number == 8 else 'train'}")
    (tmp_path / "programme" / "manifest.csv").write_text("\n".join(rows) + "\n")


def fitting(cli: Any) -> dict[str, Any]:
    """The options of the model that follow from the data."""
    cli.datamodule.setup("fit")
    cli.model.trainer = SimpleNamespace(datamodule=cli.datamodule)
    cli.model.card = cli.model.describe(cli.datamodule)
    known = cli.model.fitting_options()
    return known_options(cli.model.model_name, known) | cli.model.options


def test_the_list_is_complete() -> None:
    assert sorted(CONFIGS) == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_can_be_built(name: str) -> None:
    """Classes and options exist, the model has the size meant, and the data are there."""
    cli = parsed(name, "--data.num_workers", "0")
    options = fitting(cli)
    model = longscan.create_model(cli.model.model_name, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert cli.model.card.sample_rate in (8000, 16000, 44100)
    assert next(iter(cli.datamodule.train_dataloader()))["input_ids"].dtype in (torch.int64, torch.float32)


STAGES = "mixer: s4d, n_ssm: null, d_model: 4, n_layers: 2, pool: [4]"

#: Of each: a model that trains in a blink.
TINY = {
    "audio/compressor": ("d_model: 4, n_layers: 1", "--data.length 5000 --data.eval_length 5000 --model.warmup 100"),
    "audio/diffwave": ("d_model: 8, n_layers: 1", "--data.length 1024"),
    "audio/digits_leave_one_out": (STAGES, "--data.length 512 --data.limit_train 8"),
    "audio/digits_official": (STAGES, "--data.length 512 --data.limit_train 8"),
    "audio/quickstart": ("d_model: 4, n_layers: 1", "--data.length 512 --data.limit_train 8"),
    "audio/quickstart_digits": ("d_model: 4, n_layers: 1", "--data.limit_train 8"),
    "audio/sashimi_digits_ar": ("d_model: 4, n_layers: 1", "--data.length 512 --data.limit_train 8"),
    "audio/speech_commands_10": ("d_model: 4, n_layers: 1", "--data.length 512"),
    "audio/speech_commands_35": ("d_model: 4, n_layers: 1", "--data.length 512"),
}


@pytest.mark.parametrize("name", TINY)
def test_it_trains(name: str) -> None:
    """One step, an evaluation, and a checkpoint by the metric that it monitors."""
    from longscan.audio.training import fit

    options, more = TINY[name]
    line = f"--config {name} --output run --trainer.accelerator cpu --trainer.max_steps 1 --trainer.max_epochs 1"
    line += " --trainer.enable_progress_bar false --trainer.limit_val_batches 1 --trainer.limit_train_batches 1"
    line += f" --data.num_workers 0 --data.batch_size 2 --data.eval_batch_size 2 {more}"
    assert fit([*line.split(), "--model.options", f"{{{options}}}"]) == 0
    assert (Path("run") / "checkpoints" / "best.ckpt").is_file()
    assert (Path("run") / "model" / "audio.json").is_file()


def test_published_recipes() -> None:
    """The numbers of the papers that configurations claim to repeat."""
    for number in (10, 35):
        cli = parsed(f"audio/speech_commands_{number}")
        options = fitting(cli)
        assert options["num_classes"] == number
        assert (cli.model.optimizer_config.lr, cli.model.optimizer_config.weight_decay) == (0.01, 0.05)
        assert (cli.datamodule.batch_size, cli.trainer.max_epochs, cli.datamodule.length) == (16, 40, 16000)
        chosen = [options[key] for key in ("d_model", "n_layers", "d_state", "n_ssm", "bidirectional")]
        assert chosen == [128, 6, 64, 2, True]
    cli = parsed("audio/diffwave")
    assert (cli.model.optimizer_config.name, cli.model.optimizer_config.lr) == ("adam", 2e-4)
    assert cli.datamodule.length == 16000


def test_the_checkpoint_of_the_digit_model_is_small() -> None:
    """Weights for the package: 6 MB at the most, in float32."""
    cli = parsed("audio/sashimi_digits_ar")
    model = longscan.create_model(cli.model.model_name, **fitting(cli))
    assert sum(parameter.numel() for parameter in model.parameters()) * 4 < 6e6
