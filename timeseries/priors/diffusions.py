"""A stochastic differential equation with two regimes, and counts (TempoPFN's SDE prior; Poisson rates)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .curves import logistic, recurrence, scaled, sometimes
from .draws import chance, choice, integers, log_uniform, normal, sign, steps, uniform
from .periods import draw_period
from .registry import register_prior
from .structural import wandering_season

_STEP = 0.01


@register_prior("regime_switching")
def regime_switching(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw Ornstein-Uhlenbeck processes dx = θ (μ - x) dt + σ dW that change between a fast and a slow regime.

    The fast one: θ in 1 to 5, μ about -2, σ about 0.3; the slow one: 0.05 to 0.5, 2, 1.5. Each lasts for a geometric
    number of steps of mean 7 to 1000. Most μ have a trend, a season or a shift in level; a fifth of the θ and some σ
    change too. Euler steps of 0.01.
    """
    one, shape = (count, 1), (count, length)
    regime = _regimes(count, length, generator)
    theta = torch.where(regime, uniform(generator, one, 0.05, 0.5), uniform(generator, one, 1, 5))
    mean = torch.where(regime, normal(generator, one, 2), normal(generator, one, -2))
    sigma = torch.where(regime, (math.log(1.5) + 0.5 * normal(generator, one)).exp(),
                        (math.log(0.3) + 0.3 * normal(generator, one)).exp())  # fmt: skip
    mean = mean + sometimes(generator, _trend(count, length, generator), 0.7)
    period = choice(generator, one, (7, 30, 90, 182.625, 365.25)) * uniform(generator, one, 0.95, 1.05)
    phase = 2 * math.pi * (steps(generator, length) / period + uniform(generator, one))
    mean = mean + sometimes(generator, uniform(generator, one, 0.5, 3) * torch.sin(phase), 0.6)
    sigma = sigma * (1 + sometimes(generator, 0.5 * torch.sin(phase + 1), 0.3))
    theta = theta * (1 + sometimes(generator, 0.5 * torch.sin(phase / 2), 0.2))
    # Time runs faster in some, so that a series sees more than the start of its process.
    step = _STEP * log_uniform(generator, one, 1, 20)
    kept = (1 - theta * step).clamp(0, 1)
    inputs = (1 - kept) * mean + sigma * step.sqrt() * normal(generator, shape)
    inputs = torch.cat([inputs[:, :1] + 2 * normal(generator, one), inputs[:, 1:]], 1)
    path = recurrence(kept, inputs)
    noise = uniform(generator, one, 0, 0.1) * normal(generator, shape)
    return uniform(generator, one, -100, 100) + uniform(generator, one, 0.1, 50) * path + noise


def _regimes(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Return which regime holds, bool (count, length): a Markov chain, whose next change undoes the last one."""
    change = uniform(generator, (count, length)) < log_uniform(generator, (count, 1), 0.001, 0.15)
    return (change.cumsum(1) + integers(generator, (count, 1), 0, 1)) % 2 == 1


def _trend(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Return a line, an S-curve or a parabola of up to 5, each equally likely."""
    share = steps(generator, length) / length
    size = sign(generator, (count, 1)) * uniform(generator, (count, 1), 1, 5)
    ramp = logistic(share, uniform(generator, (count, 1), 0.2, 0.8), uniform(generator, (count, 1), 0.01, 0.1))
    kind = integers(generator, (count, 1), 0, 2)
    return size * torch.where(kind == 0, share, torch.where(kind == 1, ramp, share.square()))


@register_prior("counts")
def counts(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw Poisson counts whose rate has a season and wanders; a third are mostly zeros (intermittent demand)."""
    one = (count, 1)
    season = wandering_season(generator, draw_period(generator, one, length), length, 5)
    level = scaled(recurrence(uniform(generator, one, 0.95, 1.0), normal(generator, (count, length))))
    log_rate = uniform(generator, one, 0, 0.8) * season + uniform(generator, one, 0, 0.5) * level
    rate = log_uniform(generator, one, 0.3, 200) * log_rate.clamp(-4, 4).exp()
    drawn = torch.poisson(rate.clamp(max=1e5), generator=generator)
    present = uniform(generator, (count, length)) < uniform(generator, one, 0.05, 0.5)
    return torch.where(chance(generator, one, 0.33), drawn * present, drawn)
