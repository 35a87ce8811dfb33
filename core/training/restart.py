"""Set right what Lightning's loops make of a checkpoint that was written when an epoch had just ended."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


def settle_restart(trainer: pl.Trainer) -> None:
    """Let training go on with the next epoch where the checkpoint was written after the last batch of one.

    Lightning (2.6) restarts such a checkpoint in the middle of the finished epoch when ``max_steps`` is set, or when
    it was written before the epoch's closing hooks: it counts the epoch twice, trains on one batch too many or leaves
    out the hooks of the next epoch. To be called from ``on_train_start``, which is after the loops have read the
    checkpoint and before the first epoch begins. Checkpoints of mid-epoch, and those written by a validation, are
    restarted well and left alone.
    """
    fit = trainer.fit_loop
    epoch_loop = fit.epoch_loop
    progress: Any = fit.epoch_progress
    batches: Any = epoch_loop.batch_progress
    if not fit.restarting or progress.current.processed < progress.current.started:
        return
    progress.total.completed = progress.total.processed
    progress.current.completed = progress.current.processed
    if epoch_loop.restarted_on_train_batch_end:
        batches.total.completed = batches.total.processed
        epoch_loop._batches_that_stepped += 1
    loops: list[Any] = [fit, epoch_loop, epoch_loop.val_loop, epoch_loop.automatic_optimization]
    for loop in loops:
        loop._restarting = False
        loop.reset_restart_stage()
