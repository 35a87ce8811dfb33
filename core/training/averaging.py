"""Averaging weights without changing what is not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


def keep_constants(callback: WeightAveraging) -> None:
    """Let an average of equal values be that value.

    Lightning's exponential average rounds: it moves frozen weights by some units in the last place, and cuts integer
    buffers (tables of ids) down to the number below. The average of what is trained stays as it is.
    """
    average: Callable[..., Any] | None = callback._kwargs.get("avg_fn")
    if average is None:  # the plain mean adds differences, which are then zero
        return

    def exact(averaged: Tensor, current: Tensor, count: Tensor) -> Tensor:
        if not averaged.is_floating_point():
            return current
        return torch.where(averaged == current, current, average(averaged, current, count))

    callback._kwargs["avg_fn"] = exact


__all__ = ["keep_constants"]
