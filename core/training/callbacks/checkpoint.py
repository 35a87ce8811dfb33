"""Checkpoints: the last one, from which training goes on exactly, and the best one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ...errors import UserError, nearest
from ...files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint to a temporary file in the same folder, then rename it.

    Lightning's own goes through the system's temporary folder, and between two file systems the final move is a copy:
    a process killed meanwhile leaves half a checkpoint in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt``: every so many optimiser steps, at the end of each epoch, and at the end of training.

    It is written only when everything of a step is over, so that resuming repeats and leaves out nothing: after the
    validation where one is due at that step, and after the closing hooks where the epoch ends.

    Args:
        folder: where ``last.ckpt`` goes; ``<default_root_dir>/checkpoints`` where None.
        every_n_steps: optimiser steps between checkpoints in mid-epoch; None writes none there.
    """

    def __init__(self, folder: str | None = None, every_n_steps: int | None = 500) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"checkpoint.every_n_steps must be at least 1, got {every_n_steps}")
        self.folder = folder
        self.every_n_steps = every_n_steps
        self._saved_at: tuple[int, int] | None = None
        self._wanted = False

    @property
    def path(self) -> str:
        """Path of the checkpoint, known once training was set up."""
        assert self.folder is not None, "the folder is known after setup"
        return os.path.join(self.folder, "last.ckpt")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = self.folder or os.path.join(trainer.default_root_dir, "checkpoints")
        self.folder = trainer.strategy.broadcast(folder)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint now."""
        self._wanted = False
        epochs: Any = trainer.fit_loop.epoch_progress.current
        here = (trainer.global_step, epochs.processed)
        if trainer.fast_dev_run or self._saved_at == here:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self.path)
        self._saved_at = here

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if in_mid_step(trainer):
            return
        step = trainer.global_step
        due = self.every_n_steps is not None and step % self.every_n_steps == 0
        ends = trainer.max_steps != -1 and step >= trainer.max_steps
        if not (due or ends or trainer.should_stop):
            return
        if epoch_is_over(trainer):
            return  # saved by on_train_epoch_end
        if _validation_follows(trainer):
            self._wanted = True
            return
        self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or epoch_is_over(trainer):
            return
        if self._wanted or trainer.should_stop:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # An epoch that max_steps or early stopping cut short is not over: its place was saved in mid-epoch.
        if epoch_is_over(trainer):
            self.save(trainer)


class BestCheckpoint(ModelCheckpoint):
    """Keep ``best.ckpt``, chosen after each validation, of which one follows the last step.

    Without a validation set it holds the last weights.

    Args:
        monitor: name of the metric.
        mode: whether smaller (``min``) or larger (``max``) is better.
        folder: where it goes; ``<default_root_dir>/checkpoints`` where None.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min", folder: str | None = None) -> None:
        if mode not in ("min", "max"):
            raise UserError(f"checkpoint.mode must be min or max, got {mode!r}")
        _refuse_test_metric("checkpoint.monitor", monitor)
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            enable_version_counter=False,
            # At the end of an epoch the metric may be an old one, or none yet in a run that was resumed.
            save_on_train_epoch_end=False,
        )
        self.folder = folder

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.folder is None:
            self.folder = os.path.join(trainer.default_root_dir, "checkpoints")
            self.dirpath = os.path.realpath(self.folder)
        assert self.dirpath is not None
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            _refuse_test_metric(f"{type(callback).__name__}: monitor", str(getattr(callback, "monitor", None)))
        # Lightning warns of a folder that is not empty; a run that resumes has its own checkpoints there.
        Path(self.dirpath).mkdir(parents=True, exist_ok=True)
        super().setup(trainer, pl_module, stage)

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Now, and not after the first epoch.
        if str(self.monitor).startswith("val/") and trainer.callback_metrics:
            self._check_monitor(trainer.callback_metrics)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            monitor = getattr(callback, "monitor", None)
            if isinstance(callback, EarlyStopping) and str(monitor).startswith("val/") and trainer.callback_metrics:
                self._check_monitor(trainer.callback_metrics, monitor, "EarlyStopping: monitor")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # max_steps alone ends the training in mid-epoch without a validation; a request to stop is preceded by one.
        if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self.best_model_path or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert self.dirpath is not None
        self.best_model_path = os.path.join(self.dirpath, "best.ckpt")
        trainer.save_checkpoint(self.best_model_path)
        rank_zero_only(print)("no validation ran, so best.ckpt holds the last weights")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A run that was moved keeps its best checkpoint; Lightning would forget how good it was and overwrite it.
        assert self.dirpath is not None
        old, new = str(state_dict.get("dirpath")), str(self.dirpath)
        if old != new and os.path.exists(os.path.join(new, "best.ckpt")):
            moved = {
                name: value.replace(old, new, 1) if isinstance(value, str) else value
                for name, value in state_dict.items()
            }
            best = {path.replace(old, new, 1): score for path, score in state_dict["best_k_models"].items()}
            state_dict = moved | {"best_k_models": best}
        super().load_state_dict(state_dict)

    def _check_monitor(
        self, metrics: Mapping[str, torch.Tensor], monitor: str | None = None, option: str = "checkpoint.monitor"
    ) -> None:
        monitor = monitor or str(self.monitor)
        if monitor not in metrics:
            known = [name for name in metrics if name not in ("epoch", "step")]
            raise UserError(f"{option}: no metric is called {monitor!r}; {nearest(monitor, known)}")

    def _save_topk_checkpoint(self, trainer: pl.Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        self._check_monitor(monitor_candidates)
        super()._save_topk_checkpoint(trainer, monitor_candidates)


def _refuse_test_metric(option: str, monitor: str) -> None:
    """Training is never steered by the test set: a result chosen by it says nothing of new data.

    Raises:
        UserError: a metric of the test set.
    """
    if monitor == "test" or monitor.startswith("test/"):
        other = monitor.replace("test", "val", 1)
        raise UserError(f"{option} {monitor!r}: a model is not chosen or stopped by the test set; take {other!r}")


def in_mid_step(trainer: pl.Trainer) -> bool:
    """Whether gradients are being accumulated, so that a checkpoint now would lose them."""
    return trainer.fit_loop._should_accumulate()


def epoch_is_over(trainer: pl.Trainer) -> bool:
    """Whether all batches of the epoch have been trained on."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return progress.processed >= trainer.num_training_batches


def _validation_follows(trainer: pl.Trainer) -> bool:
    """Whether Lightning will validate right after this batch."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return sum(trainer.num_val_batches) > 0 and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
