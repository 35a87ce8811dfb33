"""Structural series: level, trend and seasons that wander, with errors, added or multiplied (Harvey 1989; Hyndman et
al. 2008, "Forecasting with Exponential Smoothing")."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .curves import levels, recurrence, scaled, sometimes
from .draws import chance, integers, log_uniform, normal, sign, steps, uniform
from .periods import draw_period
from .registry import register_prior


@register_prior("random_walk")
def random_walk(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw random walks with drift whose steps may have memory (AR of -0.3 to 0.8), bursts of volatility and jumps.

    A third is exponentiated (prices), a third has a slope that itself wanders, some have noise on top.
    """
    shape = (count, length)
    memory = torch.where(chance(generator, (count, 1), 0.5), uniform(generator, (count, 1), -0.3, 0.8), 0.0)
    heavy = torch.where(
        chance(generator, (count, 1), 0.3), normal(generator, shape) / uniform(generator, shape, 0.2, 1).sqrt(),
        normal(generator, shape),
    )  # fmt: skip
    volatility = recurrence(
        uniform(generator, (count, 1), 0.9, 0.995),
        uniform(generator, (count, 1), 0, 0.15) * normal(generator, shape),
    )
    shocks = heavy * torch.where(chance(generator, (count, 1), 0.4), volatility.clamp(-3, 3).exp(), 1.0)
    increments = recurrence(memory, shocks)
    slope = recurrence(
        uniform(generator, (count, 1), 0.95, 1.0),
        log_uniform(generator, (count, 1), 1e-3, 0.1) * normal(generator, shape),
    )
    increments = increments + sometimes(generator, slope, 0.35)
    increments = increments + uniform(generator, (count, 1), -0.2, 0.2) * chance(generator, (count, 1), 0.6)
    walk = increments.cumsum(1)
    walk = walk + sometimes(generator, levels(generator, count, length, uniform(generator, (count, 1), 0, 0.01),
                                              uniform(generator, (count, 1), 2, 15)), 0.2)  # fmt: skip
    noise = log_uniform(generator, (count, 1), 0.05, 3) * chance(generator, (count, 1), 0.4)
    walk = walk + noise * normal(generator, shape)
    grown = (uniform(generator, (count, 1), 0.1, 1.2) * scaled(walk)).exp()
    return torch.where(chance(generator, (count, 1), 0.33), grown, walk)


@register_prior("structural")
def structural(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw level + trend + one or two seasons + errors; half are multiplied together instead.

    Seasons are of calendar length or any, of up to six harmonics whose strengths wander a little; the second one is 2
    to 8 times as long as the first. Errors are white or autoregressive.
    """
    shape, one = (count, length), (count, 1)
    time = steps(generator, length)
    level = recurrence(uniform(generator, one, 0.9, 1.0), normal(generator, shape))
    level = uniform(generator, one, 0, 1).square() * scaled(level)
    level = level + sometimes(generator, 0.5 * levels(generator, count, length, uniform(generator, one, 0, 0.01),
                                                      uniform(generator, one, 0.2, 2)), 0.25)  # fmt: skip
    bend = uniform(generator, one, 0.3, 2.5)
    trend = sign(generator, one) * uniform(generator, one, 0, 2) * (time / length) ** bend
    trend = trend * chance(generator, one, 0.6)
    first = draw_period(generator, one, length)
    second = (first * integers(generator, one, 2, 8)).clamp(max=length)
    season = wandering_season(generator, first, length, 6)
    season = season + uniform(generator, one, 0, 1) * sometimes(
        generator, wandering_season(generator, second, length, 4), 0.5
    )
    season = uniform(generator, one, 0.0, 2.0) * season
    errors = recurrence(uniform(generator, one, 0.0, 0.8) * chance(generator, one, 0.5), normal(generator, shape))
    errors = log_uniform(generator, one, 0.01, 0.6) * errors
    added = level + trend + season + errors
    depth = uniform(generator, one, 0.1, 0.6)
    multiplied = (0.5 * (level + trend)).clamp(-4, 4).exp() * (1 + depth * scaled(season)) * (1 + depth * 0.5 * errors)
    return torch.where(chance(generator, one, 0.5), added, multiplied)


def wandering_season(generator: torch.Generator, period: Tensor, length: int, harmonics: int) -> Tensor:
    """Return a season of deviation 1 and ``period`` (count, 1), whose harmonics wander slowly in strength."""
    count = len(period)
    time = steps(generator, length)
    order = torch.arange(1, harmonics + 1, device=generator.device, dtype=torch.float32).view(1, -1, 1)
    kept = (order <= integers(generator, (count, 1, 1), 1, harmonics)) & (order <= period.unsqueeze(1) / 2)
    strength = normal(generator, (count, harmonics, 1)) / order ** uniform(generator, (count, 1, 1), 0.2, 1.2)
    wander = normal(generator, (count, harmonics, 2, length)).cumsum(-1) / math.sqrt(length)
    wander = 1 + uniform(generator, (count, 1, 1, 1), 0, 1).square() * wander
    turn = 2 * math.pi * order * (time / period).unsqueeze(1) + uniform(generator, (count, harmonics, 1), 0, 6.2832)
    parts = strength * kept * (wander[:, :, 0] * torch.sin(turn) + (wander[:, :, 1] - 1) * torch.cos(turn))
    return scaled(parts.sum(1))
