"""Learning-rate schedules: linear warm-up, then cosine, linear or constant, one value per optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import UserError


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes over the steps of training.

    With peak learning rate p, warm-up start s, floor f, W warm-up steps and T steps in all, step t = 0, 1, … has

    - t < W: s + (p − s) t / W
    - cosine: f + (p − f) (1 + cos(π (t − W) / (T − W))) / 2
    - linear: p + (f − p) (t − W) / (T − W)
    - constant: p

    and f after T. Parameter groups with another learning rate follow the same curve, scaled.

    Args:
        name: ``cosine``, ``linear`` or ``constant``.
        warmup_steps: steps of warm-up.
        warmup_fraction: the same as a fraction of all steps (rounded down).
        warmup_start_lr: learning rate of step 0, where there is a warm-up.
        min_lr: floor of the learning rate.
        min_lr_ratio: the same as a fraction of the peak.
        total_steps: T; None takes it from the trainer (``max_epochs`` or ``max_steps``).
    """

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int | None = None
    warmup_fraction: float | None = None
    warmup_start_lr: float = 1e-6
    min_lr: float | None = None
    min_lr_ratio: float | None = None
    total_steps: int | None = None

    def __post_init__(self) -> None:
        if self.name not in ("cosine", "linear", "constant"):
            raise UserError(f"schedule.name must be cosine, linear or constant, got {self.name!r}")
        if self.warmup_steps is not None and self.warmup_fraction is not None:
            raise UserError("schedule: give warmup_steps or warmup_fraction, not both")
        if self.min_lr is not None and self.min_lr_ratio is not None:
            raise UserError("schedule: give min_lr or min_lr_ratio, not both")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise UserError(f"schedule.warmup_steps must not be negative, got {self.warmup_steps}")
        if self.warmup_fraction is not None and not 0 <= self.warmup_fraction < 1:
            raise UserError(f"schedule.warmup_fraction must be in [0, 1), got {self.warmup_fraction}")
        if self.min_lr_ratio is not None and not 0 <= self.min_lr_ratio <= 1:
            raise UserError(f"schedule.min_lr_ratio must be in [0, 1], got {self.min_lr_ratio}")
        for name in ("warmup_start_lr", "min_lr"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"schedule.{name} must not be negative, got {value}")
        if self.total_steps is not None and self.total_steps < 1:
            raise UserError(f"schedule.total_steps must be at least 1, got {self.total_steps}")

    @property
    def needs_total(self) -> bool:
        """Whether the curve depends on the number of steps."""
        return self.name != "constant" or self.warmup_fraction is not None


def learning_rate(step: int, config: ScheduleConfig, peak: float, total_steps: float) -> float:
    """Return the learning rate of optimiser step ``step`` (from 0), see :class:`ScheduleConfig` for the formulas."""
    if config.warmup_fraction is not None:
        warmup = int(config.warmup_fraction * total_steps)
    else:
        warmup = config.warmup_steps or 0
    if config.min_lr is not None:
        floor = min(config.min_lr, peak)
    else:
        floor = (config.min_lr_ratio or 0.0) * peak
    if step < warmup:
        start = min(config.warmup_start_lr, peak)
        return start + (peak - start) * step / warmup
    if config.name == "constant":
        return peak
    progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
    if config.name == "linear":
        return peak + (floor - peak) * progress
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def build_schedule(
    optimizer: torch.optim.Optimizer, config: ScheduleConfig, peak: float, total_steps: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the schedule of ``config``, to be stepped once per optimiser step.

    Args:
        peak: learning rate that the formulas speak of; groups follow in proportion.
        total_steps: optimiser steps of the whole training, ``inf`` where it has no end.

    Raises:
        UserError: the schedule needs to know its end and there is none, or the warm-up is as long as the training.
    """
    total = config.total_steps if config.total_steps is not None else total_steps
    if config.needs_total and not math.isfinite(total):
        raise UserError(
            f"the {config.name} schedule needs an end: set trainer.max_steps, trainer.max_epochs or "
            "schedule.total_steps, or take schedule.name constant"
        )
    if config.name != "constant" and (config.warmup_steps or 0) >= total:
        raise UserError(f"schedule.warmup_steps {config.warmup_steps} leaves nothing of {int(total)} training steps")
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, config, peak, total) / peak)
