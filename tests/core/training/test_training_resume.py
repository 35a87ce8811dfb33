"""A training that is killed, or interrupted, and resumed ends exactly like one that was left alone."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from toy_training import (
    Recorder,
    Run,
    ToyData,
    ToyModel,
    assert_same,
    final_state,
    processes,
    start,
    train_slowly,
)

from longscan.core.training.callbacks import LastCheckpoint, RandomState, Stage
from longscan.core.training.optimizer import OptimizerConfig
from longscan.core.training.schedule import ScheduleConfig
from longscan.core.training.tasks import LanguageModelTask

STAGES = [Stage(1, 3, 8), Stage(1, 4, 6), Stage(1, 6, 4)]
CASES: dict[str, dict[str, Any]] = {
    "epochs": {},
    "steps": {"trainer": {"max_steps": 15}, "every_n_steps": 1},
    "validation within the epoch": {"trainer": {"max_steps": 15, "val_check_interval": 2}},
    "no validation": {"trainer": {"max_steps": 15, "limit_val_batches": 0}, "every_n_steps": 1},
    "accumulation": {"accumulate": 2, "every_n_steps": 1},
    "averaged weights": {"ema": True, "every_n_steps": 1},
    "length warm-up": {"stages": STAGES, "every_n_steps": 1},
    "part of each epoch": {"trainer": {"max_epochs": 3, "limit_train_batches": 4}},
    "workers": {"workers": 2, "trainer": {"max_epochs": 2}},
    "workers and length warm-up": {"workers": 2, "stages": STAGES},
}


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_equals_uninterrupted(case: str, tmp_path: Path) -> None:
    options = CASES[case]
    whole = Run(tmp_path / "whole", **options)
    assert start(whole) == 0
    expected = final_state(whole)
    last = len(whole.batches()) - 1
    for kill_at in (3, 7, last):
        run = Run(tmp_path / f"killed {kill_at}", kill_at=kill_at, **options)
        assert start(run) == -signal.SIGKILL
        run.kill_at, run.ckpt_path = None, str(run.last)
        assert start(run) == 0
        assert_same(expected, final_state(run), f"{case}, killed at {kill_at}")
        assert set(run.batches()) == set(whole.batches())


def test_killed_again_and_again(tmp_path: Path) -> None:
    options: dict[str, Any] = {"trainer": {"max_steps": 17}, "every_n_steps": 1}
    whole = Run(tmp_path / "whole", **options)
    assert start(whole) == 0
    run = Run(tmp_path / "killed", **options)
    for kill_at in (2, 5, 1, 4, 3, 1):  # ends of epochs, at batches 6 and 12, are among the places
        run.kill_at = kill_at
        run.ckpt_path = str(run.last) if run.last.exists() else None
        assert start(run) == -signal.SIGKILL
    run.kill_at, run.ckpt_path = None, str(run.last)
    assert start(run) == 0
    assert_same(final_state(whole), final_state(run))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_interrupt_saves_and_resumes(accumulate: int, tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", workers=accumulate - 1, accumulate=accumulate)
    assert start(whole) == 0
    run = Run(tmp_path / "stopped", workers=accumulate - 1, accumulate=accumulate, every_n_steps=100)
    run.kill_at, run.signal = 8, signal.SIGINT
    assert start(run) == 130
    log = (run.folder / "log.txt").read_text()
    assert f"saved {run.last}" in log
    assert "resume with: trainer.fit" in log
    steps = torch.load(run.last, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
    assert steps == (9 if accumulate == 1 else 10)  # batch 8 (from 0) was under way, with its partner
    run.kill_at, run.ckpt_path = None, str(run.last)
    assert start(run) == 0
    assert_same(final_state(whole), final_state(run))


def test_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    process = processes().Process(target=train_slowly, args=(tmp_path,))
    process.start()
    for _ in range(2):
        _wait_for(tmp_path / "log.txt", "in the step" if _ == 0 else "interrupted: finishing the step")
        os.kill(process.pid, signal.SIGINT)
    begun = time.monotonic()
    process.join(10)
    assert process.exitcode == -signal.SIGINT
    assert time.monotonic() - begun < 5
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def _wait_for(path: Path, text: str) -> None:
    for _ in range(600):
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{text!r} did not come")


@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_steps": 17}, {"max_steps": 17, "limit_val_batches": 0}])
def test_any_checkpoint_of_lightning_resumes(limits: dict[str, int], tmp_path: Path) -> None:
    """Also those written at the last batch of an epoch, at its end, and by a validation."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    kept = [
        ModelCheckpoint(tmp_path, "step{step}", every_n_train_steps=1, save_top_k=-1),
        ModelCheckpoint(tmp_path, "epoch{step}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True),
        ModelCheckpoint(tmp_path, "val{step}", monitor="train/lr", save_top_k=-1, save_on_train_epoch_end=False),
    ]
    whole = _fit_here(tmp_path / "whole", None, kept, limits)
    checkpoints = [path for path in tmp_path.glob("*.ckpt") if f"={whole['global_step']}" not in path.name]
    assert len(checkpoints) >= 18
    places = [path for path in checkpoints if re.search(r"=(1|5|6|7|12|13)\.", path.name)]
    for path in places:
        resumed = _fit_here(tmp_path / path.stem, path, [], limits)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "ToyData"):
            assert_same(whole[key], resumed[key], f"{path.name} {key}")


def _fit_here(folder: Path, checkpoint: Path | None, callbacks: list[Any], limits: dict[str, Any]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pl.seed_everything(17)
        trainer = pl.Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[RandomState(), LastCheckpoint(), *callbacks],
            **limits,
        )
        task = LanguageModelTask(ToyModel(), OptimizerConfig(lr=1e-2), ScheduleConfig(warmup_steps=3))
        trainer.fit(task, ToyData(batch_size=4, seed=5), ckpt_path=checkpoint, weights_only=True)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


class _Fault(pl.Callback):
    """Fails in the middle of a batch, whose number counts from 0."""

    def __init__(self, at: int) -> None:
        self.left = at

    def on_before_backward(self, *arguments: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise FloatingPointError


def test_a_batch_that_failed_comes_again(tmp_path: Path) -> None:
    """A checkpoint written when an error strikes has handed out a batch that was not trained on."""
    warnings.simplefilter("ignore")
    whole, part = Recorder(tmp_path / "whole.txt"), Recorder(tmp_path / "part.txt")
    _fit_here(tmp_path / "whole", None, [whole], {"max_epochs": 2})
    keeper = ModelCheckpoint(tmp_path, "fault", every_n_train_steps=100, save_on_exception=True)
    with pytest.raises(FloatingPointError):
        _fit_here(tmp_path / "part", None, [part, keeper, _Fault(8)], {"max_epochs": 2})
    _fit_here(tmp_path / "rest", tmp_path / "fault.ckpt", [part], {"max_epochs": 2})
    lines = whole.path.read_text().splitlines()
    assert part.path.read_text().splitlines() == [*lines[:9], *lines[8:]]


def test_dropout_would_differ_without_the_random_state(tmp_path: Path) -> None:
    """The comparison above would notice: here the random state is thrown away."""
    whole = Run(tmp_path / "whole")
    run = Run(tmp_path / "killed", kill_at=7)
    assert (start(whole), start(run)) == (0, -signal.SIGKILL)
    checkpoint = torch.load(run.last, weights_only=True)
    del checkpoint["callbacks"]["RandomState"]
    torch.save(checkpoint, run.last)
    run.kill_at, run.ckpt_path = None, str(run.last)
    assert start(run) == 0
    with pytest.raises(AssertionError):
        assert_same(final_state(whole)["weights"], final_state(run)["weights"])
