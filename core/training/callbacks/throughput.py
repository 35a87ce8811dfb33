"""How fast training is, and how much memory it takes."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Log tokens and samples per second, and peak memory in bytes, at the trainer's logging interval.

    Time spent in validation does not count. Logged as ``train/tokens_per_second``, ``train/samples_per_second`` (all
    processes together) and ``train/peak_memory_bytes`` (allocated by torch on a CUDA device, else the resident set of
    the process).
    """

    def __init__(self) -> None:
        self.tokens_per_second: float | None = None
        self.samples_per_second: float | None = None
        self._tokens = self._samples = 0
        self._since = self._paused = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start_window()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since += time.perf_counter() - self._paused

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        tokens = batch["input_ids"]
        # Of images (batch, channels, height, width) the pixels count.
        length = tokens[0, 0].numel() if tokens.dim() == 4 else tokens.shape[1] if tokens.dim() > 1 else 1
        self._tokens += tokens.shape[0] * length
        self._samples += tokens.shape[0]
        if (batch_idx + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        self.tokens_per_second = self._tokens * trainer.world_size / elapsed
        self.samples_per_second = self._samples * trainer.world_size / elapsed
        values = {
            "train/tokens_per_second": self.tokens_per_second,
            "train/samples_per_second": self.samples_per_second,
            "train/peak_memory_bytes": float(peak_memory_bytes(pl_module.device)),
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
        self._start_window()

    def _start_window(self) -> None:
        self._tokens = self._samples = 0
        self._since = time.perf_counter()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory taken so far: allocated on a CUDA device, else the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
