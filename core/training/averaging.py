"""Averaging weights without changing what is not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel


def keep_constants(average: AveragedModel) -> None:
    """Let an average of equal values be that value.

    Lightning's exponential average rounds: it moves frozen weights by some units in the last place, and cuts integer
    buffers (tables of ids) down to the number below. The average of what is trained stays as it is.
    """
    mean: Callable[..., Any] | None = average.avg_fn
    if mean is None:  # the plain mean adds differences, which are then zero
        return

    def exact(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current
        return torch.where(averaged == current, current, mean(averaged, current, count))

    average.avg_fn = exact


__all__ = ["keep_constants"]
