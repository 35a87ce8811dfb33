"""Periods as series have them: those of the calendar at common frequencies, and any others."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Shape, chance, choice, log_uniform

#: Steps per cycle that calendars give: hours, quarters of hours, days, weeks, months, minutes.
CALENDAR_PERIODS = (
    4,
    5,
    6,
    7,
    8,
    10,
    12,
    13,
    14,
    24,
    26,
    28,
    30,
    48,
    52,
    60,
    90,
    96,
    120,
    144,
    168,
    180,
    288,
    336,
    365,
)
_WEIGHTS = (1, 1, 1, 3, 1, 1, 4, 1, 1, 6, 1, 1, 1, 3, 4, 2, 1, 3, 1, 2, 4, 1, 1, 1, 1)


def draw_period(generator: torch.Generator, shape: Shape, length: int) -> Tensor:
    """Return periods in steps, float32: three in four of a calendar, the others between 3 and a third of ``length``.

    None is longer than a third of ``length`` (but 4 at least).
    """
    longest = max(4.0, length / 3)
    pairs = [pair for pair in zip(CALENDAR_PERIODS, _WEIGHTS, strict=True) if pair[0] <= longest]
    periods, weights = zip(*pairs, strict=True)
    calendar = choice(generator, shape, periods, weights)
    other = log_uniform(generator, shape, 3.0, longest).round()
    return torch.where(chance(generator, shape, 0.75), calendar, other)
