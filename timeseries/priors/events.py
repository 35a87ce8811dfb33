"""Series of events: steps between levels, spikes on a constant, pulses (TempoPFN, arXiv:2510.25502)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .curves import levels, recurrence, sometimes
from .draws import chance, integers, log_uniform, normal, sign, steps, uniform
from .registry import register_prior


@register_prior("steps")
def level_steps(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw piecewise constant series: stable, climbing, falling or oscillating levels, and spikes that decay.

    A jump comes every 10 to 300 steps. Slight noise, and sines of 288 and 2016 steps in some; scaled by 0.1 to 10.
    """
    one, shape = (count, 1), (count, length)
    time = steps(generator, length)
    rate = log_uniform(generator, one, 1 / 300, 1 / 10)
    jumps = uniform(generator, shape) < rate
    size = log_uniform(generator, one, 0.3, 5) * uniform(generator, shape, 0.2, 1)
    tendency = torch.where(chance(generator, one, 0.4), sign(generator, one), sign(generator, shape))
    moves = torch.where(jumps, size * tendency, 0.0)
    stay = torch.where(chance(generator, one, 0.5), torch.ones(one, device=generator.device),
                       uniform(generator, one, 0.7, 0.99))  # fmt: skip
    series = uniform(generator, one, 5, 15) + recurrence(stay, moves)
    series = series + sometimes(generator, uniform(generator, one, 0, 0.8) * torch.sin(2 * math.pi * time / 288), 0.5)
    series = series + sometimes(generator, uniform(generator, one, 0, 0.7) * torch.sin(2 * math.pi * time / 2016), 0.5)
    series = series + log_uniform(generator, one, 1e-3, 0.1) * normal(generator, shape)
    return series * log_uniform(generator, one, 0.1, 10)


@register_prior("anomalies")
def anomalies(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw a constant with regular spikes, all up or all down, every 12 to 300 steps.

    Magnitudes have memory (AR of 0.7). A quarter of the series have satellites within ten steps of some spikes, a
    quarter further spikes at random.
    """
    one, shape = (count, 1), (count, length)
    time = steps(generator, length)
    period = log_uniform(generator, one, 12, 300).round()
    offset = (uniform(generator, one) * period).floor()
    regular = (time - offset) % period == 0
    near = torch.nn.functional.max_pool1d(regular.float().unsqueeze(1), 21, 1, 10)[:, 0] > 0
    satellites = near & (uniform(generator, shape) < 0.04) & chance(generator, one, 0.25)
    strays = (uniform(generator, shape) < 0.3 / period) & chance(generator, one, 0.25)
    base = uniform(generator, one, 10, 50)
    memory = recurrence(torch.full(one, 0.7, device=generator.device), 0.2 * normal(generator, shape))
    size = (1 + memory + 0.1 * normal(generator, shape)).clamp(0.1, 3) * base * sign(generator, one)
    spikes = torch.where(regular | satellites | strays, size, 0.0)
    noise = log_uniform(generator, one, 1e-3, 2) * normal(generator, shape)
    return uniform(generator, one, -100, 100) + spikes + noise


@register_prior("spikes")
def pulses(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw pulses, pointed or with a plateau, of amplitude 50 to 300 on a constant: 4 to 12 evenly apart, some in a
    burst; half with brown noise."""
    one = (count, 1)
    time = steps(generator, length)
    number = integers(generator, one, 4, 12)
    apart = torch.where(chance(generator, one, 0.05), length / (8.0 * number), length / number.float())
    place = ((time + uniform(generator, one) * apart) / apart).frac() * apart - apart / 2
    half = torch.minimum(uniform(generator, one, 4, 50), apart / 3)
    plateau = torch.where(chance(generator, one, 0.45), uniform(generator, one, 0.2, 0.8), 0.0)
    shape = ((1 - place.abs() / half) / (1 - plateau)).clamp(0, 1)
    series = sign(generator, one) * uniform(generator, one, 50, 300) * shape
    inside = time < length * uniform(generator, one, 0.1, 1)
    series = torch.where(chance(generator, one, 0.05), series * inside, series)
    brown = recurrence(torch.full(one, 0.99, device=generator.device), normal(generator, (count, length)))
    noise = sometimes(generator, 0.5 * brown, 0.5) + log_uniform(generator, one, 0.01, 3) * normal(
        generator, (count, length)
    )
    return uniform(generator, one, -200, 200) + series + noise


@register_prior("level_shifts")
def level_shifts(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw noise about a level that jumps rarely, with an autoregressive error."""
    one = (count, 1)
    level = levels(generator, count, length, log_uniform(generator, one, 0.001, 0.02), uniform(generator, one, 0.5, 5))
    error = recurrence(uniform(generator, one, 0, 0.9), normal(generator, (count, length)))
    return uniform(generator, one, -20, 20) + level + uniform(generator, one, 0.1, 1) * error
