"""A toy training run that tests start in processes of their own, interrupt and resume."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from longscan.core.errors import UserError
from longscan.core.training.callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    GracefulInterrupt,
    LastCheckpoint,
    RandomState,
    SequenceLengthWarmup,
    Stage,
)
from longscan.core.training.cli import run_training
from longscan.core.training.data import ResumableDataModule, SampleKey, sample_generator
from longscan.core.training.module import TrainingModule
from longscan.core.training.optimizer import OptimizerConfig
from longscan.core.training.schedule import ScheduleConfig
from longscan.core.training.tasks import LanguageModelTask

VOCABULARY = 11


class ToyModel(nn.Module):
    """Embedding, dropout, two linear layers: enough to have random state, tied to no position."""

    def __init__(self, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, VOCABULARY)

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        hidden = self.norm(self.embedding(input_ids))
        return self.output(self.dropout(torch.relu(self.hidden(hidden))))

    def model_config(self) -> dict[str, Any]:
        return {"width": self.embedding.embedding_dim}


class ToyDataset:
    """Random tokens whose augmentation depends on epoch and index; the target is the token before."""

    def __init__(self, length: int, seed: int, seqlen: int = 6) -> None:
        self.length, self.seed, self.seqlen = length, seed, seqlen

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: SampleKey) -> torch.Tensor:
        generator = sample_generator(self.seed, key)
        return torch.from_numpy(generator.integers(0, VOCABULARY, self.seqlen + 1))

    def set_seqlen(self, seqlen: int) -> None:
        self.seqlen = seqlen


class ToyData(ResumableDataModule):
    """Synthetic tokens."""

    def __init__(self, samples: int = 22, batch_size: int = 4, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.samples = samples

    def setup(self, stage: str | None = None) -> None:
        self.train_set = ToyDataset(self.samples, self.seed)
        self.val_set = ToyDataset(5, self.seed + 1)

    def collate(self, samples: list[torch.Tensor]) -> dict[str, Any]:
        tokens = torch.stack(samples)
        return {"input_ids": tokens[:, 1:], "labels": tokens[:, :-1]}


class ToyClassifier(nn.Module):
    """Which of three tokens comes most often."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 3)

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.embedding(input_ids).mean(1)


class ToyClasses(ResumableDataModule):
    """Random tokens below 3, labelled by the most frequent."""

    class_names = ("A", "C", "G")

    def __init__(self, bad_index: int = -1, batch_size: int = 8, num_workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        self.bad_index = bad_index

    def setup(self, stage: str | None = None) -> None:
        self.train_set = _Classes(96, 0, self.bad_index)
        self.val_set = _Classes(24, 1)
        self.test_set = {"near": _Classes(24, 2), "far": _Classes(16, 3)}
        self.predict_set = _Classes(5, 4)

    def collate(self, samples: list[Any]) -> dict[str, Any]:
        names, tokens, labels = zip(*samples, strict=True)
        return {"name": list(names), "input_ids": torch.stack(tokens), "labels": torch.tensor(labels)}


class _Classes:
    def __init__(self, length: int, seed: int, bad_index: int = -1) -> None:
        self.length, self.seed, self.bad_index = length, seed, bad_index

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: SampleKey) -> tuple[str, torch.Tensor, int]:
        if key.index == self.bad_index:
            raise UserError(f"reads.fa: record {key.index} has no sequence; remove it")
        tokens = torch.from_numpy(sample_generator(self.seed, SampleKey(0, key.index)).integers(0, 3, 7))
        return f"read{key.index}", tokens, int(tokens.bincount(minlength=3).argmax())


class Recorder(pl.Callback):
    """Note the shape and content of every batch, and interrupt the process at a given batch."""

    def __init__(self, path: Path, at: int | None = None, number: int | None = None) -> None:
        self.path, self.at, self.number, self.seen = Path(path), at, number, 0

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: torch.Tensor) -> None:
        if self.at is not None and self.seen == self.at:
            assert self.number is not None
            os.kill(os.getpid(), self.number)
        self.seen += 1

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        tokens = batch["input_ids"]
        with self.path.open("a") as file:
            file.write(f"{trainer.current_epoch} {batch_idx} {tuple(tokens.shape)} {int(tokens.sum())}\n")


@dataclass
class Run:
    """One training run; ``trainer`` holds further arguments of the trainer."""

    folder: Path
    ckpt_path: str | None = None
    workers: int = 0
    accumulate: int = 1
    every_n_steps: int = 2
    kill_at: int | None = None
    signal: int = signal.SIGKILL
    ema: bool = False
    stages: list[Stage] = field(default_factory=list)
    trainer: dict[str, Any] = field(default_factory=lambda: {"max_epochs": 3})

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    def batches(self) -> list[str]:
        """Lines ``epoch batch shape sum`` of every batch trained on."""
        return (self.folder / "batches.txt").read_text().splitlines()


def train(run: Run) -> None:
    """Train in this process; the output goes to ``log.txt``."""
    multiprocessing.set_start_method("fork", force=True)  # for the loaders; a forked server would be inherited
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    run.folder.mkdir(parents=True, exist_ok=True)
    log = (run.folder / "log.txt").open("a", buffering=1)  # left open: a traceback is written after this function
    sys.stdout = sys.stderr = log
    os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    pl.seed_everything(17)
    callbacks: list[Any] = [RandomState(), Recorder(run.folder / "batches.txt", run.kill_at, run.signal)]
    callbacks += [LastCheckpoint(every_n_steps=run.every_n_steps), BestCheckpoint(), GracefulInterrupt()]
    callbacks += [EMAWeightAveraging(decay=0.9)] if run.ema else []
    callbacks += [SequenceLengthWarmup(run.stages)] if run.stages else []
    trainer = pl.Trainer(
        default_root_dir=run.folder,
        accelerator="cpu",
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=run.accumulate,
        gradient_clip_val=1.0,
        reload_dataloaders_every_n_epochs=1 if run.stages else 0,
        **run.trainer,
    )
    schedule = ScheduleConfig(warmup_steps=3)
    task = LanguageModelTask(ToyModel(), OptimizerConfig(lr=1e-2), schedule)
    trainer.fit(task, ToyData(batch_size=4, num_workers=run.workers, seed=5), ckpt_path=run.ckpt_path)
    print("total steps", task.total_steps())


def train_slowly(folder: Path) -> None:
    """Train, but stay in the first step until interrupted."""

    def wait(*arguments: Any) -> None:
        print("in the step")
        time.sleep(60)

    Recorder.on_before_backward = wait  # type: ignore[method-assign]
    train(Run(folder))


def run_command(verb: str, *argv: str) -> int:
    """Run a training verb as a domain's command line does."""
    return run_training(verb, argv, domain="genomics", task_base=TrainingModule, data_base=ResumableDataModule)


def run_command_in_process(argv: list[str], folder: str, log: str) -> None:
    """The same in a process of its own, in ``folder``; the output goes to the file ``log``."""
    sys.stdout = sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115  # for the life of the process
    multiprocessing.set_start_method("fork", force=True)  # for the loaders; a forked server would be inherited
    os.chdir(folder)
    sys.argv = ["longscan"]
    os._exit(run_command(*argv))


def processes() -> Any:
    """Return what starts processes from a server that has imported everything heavy."""
    context = multiprocessing.get_context("forkserver")
    # Imported once, by the server that the runs are forked from.
    context.set_forkserver_preload(
        ["torch._dynamo", "longscan.core.training.tasks", "longscan.core.training.callbacks"]
    )
    return context


def start(run: Run) -> int:
    """Train in a new process and return its exit status; minus the signal where one ended it."""
    process = processes().Process(target=train, args=(run,))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def final_state(run: Run) -> dict[str, Any]:
    """What the last checkpoint holds of weights, optimiser, schedule, random state and data order."""
    checkpoint = torch.load(run.last, weights_only=True)
    return {
        "weights": checkpoint["state_dict"],
        "current weights": checkpoint.get("current_model_state"),
        "optimizer": checkpoint["optimizer_states"],
        "schedule": checkpoint["lr_schedulers"],
        "random": checkpoint["callbacks"]["RandomState"],
        "data": checkpoint["ToyData"],
        "steps": checkpoint["global_step"],
    }


def assert_same(one: Any, other: Any, where: str = "state") -> None:
    """Compare nested values bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    else:
        assert one == other, f"{where}: {one} != {other}"
