"""Schedules against values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from longscan.core.errors import UserError
from longscan.core.training.schedule import ScheduleConfig, build_schedule, learning_rate


def test_cosine_with_warmup_and_floor() -> None:
    """Caduceus: peak 8e-3, floor 1e-4, 10 % warm-up from 1e-6."""
    config = ScheduleConfig(warmup_fraction=0.1, min_lr=1e-4)
    values = [learning_rate(step, config, 8e-3, 100) for step in (0, 5, 10, 55, 100, 150)]
    # Half way up 1e-6 + 0.5 (8e-3 - 1e-6); half way down the mean of peak and floor.
    assert values == pytest.approx([1e-6, 4.0005e-3, 8e-3, 4.05e-3, 1e-4, 1e-4], rel=1e-12)
    quarter = 1e-4 + 7.9e-3 * 0.5 * (1 + math.sqrt(0.5))
    assert learning_rate(10 + 22, ScheduleConfig(warmup_steps=10, min_lr=1e-4), 8e-3, 98) == pytest.approx(quarter)


def test_linear_and_constant() -> None:
    linear = ScheduleConfig(name="linear", warmup_steps=2, min_lr_ratio=0.1, warmup_start_lr=0.0)
    assert [learning_rate(step, linear, 1.0, 12) for step in (0, 1, 2, 7, 12)] == pytest.approx([0, 0.5, 1, 0.55, 0.1])
    constant = ScheduleConfig(name="constant", warmup_steps=4, warmup_start_lr=0.2)
    assert [learning_rate(step, constant, 1.0, math.inf) for step in (0, 2, 4, 9)] == pytest.approx([0.2, 0.6, 1, 1])


def test_groups_follow_in_proportion() -> None:
    one, two = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [one], "lr": 1.0}, {"params": [two], "lr": 0.1}], lr=1.0)
    schedule = build_schedule(optimizer, ScheduleConfig(warmup_steps=2, warmup_start_lr=0.5), 1.0, 4)
    seen = []
    for _ in range(5):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert seen == [pytest.approx([lr, 0.1 * lr]) for lr in (0.5, 0.75, 1.0, 0.5, 0.0)]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"warmup_steps": 1, "warmup_fraction": 0.1}, "not both"),
        ({"min_lr": 1.0, "min_lr_ratio": 0.1}, "not both"),
        ({"name": "step"}, "cosine, linear or constant"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
        ({"min_lr_ratio": 2.0}, "min_lr_ratio"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"total_steps": 0}, "total_steps"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ScheduleConfig(**options)


def test_an_endless_training_needs_a_constant_schedule() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match="needs an end"):
        build_schedule(optimizer, ScheduleConfig(), 1.0, math.inf)
    build_schedule(optimizer, ScheduleConfig(name="constant"), 1.0, math.inf)
    with pytest.raises(UserError, match="leaves nothing of 10"):
        build_schedule(optimizer, ScheduleConfig(warmup_steps=10), 1.0, 10)
