"""Ctrl-C that loses nothing."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from .checkpoint import LastCheckpoint, epoch_is_over, in_mid_step

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class GracefulInterrupt(Checkpoint):
    """On Ctrl-C finish the optimiser step, save, say how to resume, and exit with status 130.

    A second Ctrl-C ends the process at once. Where the epoch is just over, its validation and closing hooks run first.
    It counts as a checkpoint callback so that Lightning calls it after all others, whose state it saves.

    Args:
        resume_command: makes the command that resumes, as a list of words, from the path of the checkpoint.
    """

    def __init__(self, resume_command: Callable[[str], list[str]] | None = None) -> None:
        self.resume_command = resume_command
        self.requested = False
        self._previous: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self.requested = True
        print(
            "\ninterrupted: finishing the step (and a validation under way), then saving; Ctrl-C again stops at once",
            file=sys.stderr,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not in_mid_step(trainer) and not epoch_is_over(trainer):
            self._stop_if_requested(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_requested(trainer)

    def _stop_if_requested(self, trainer: pl.Trainer) -> None:
        # The signal may have reached one process alone; all must stop at the same step.
        if not trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            return
        last = next((c for c in trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint)), None)
        if last is None:
            last = LastCheckpoint()
            last.setup(trainer, trainer.lightning_module, "fit")
        last.save(trainer)
        if trainer.is_global_zero:
            command = self.resume_command(last.path) if self.resume_command else None
            print(f"saved {last.path}", file=sys.stderr)
            if command:
                print(f"resume with: {shlex.join(command)}", file=sys.stderr)
            else:
                print(f"resume with: trainer.fit(…, ckpt_path={last.path!r})", file=sys.stderr)
        raise SystemExit(INTERRUPTED)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
