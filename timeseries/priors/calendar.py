"""Trend times seasons of the calendar (ForecastPFN, Dooley et al. 2023, arXiv:2311.01933, with TempoPFN's blending)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draws import categories, chance, normal, steps, uniform
from .registry import register_prior

#: Days in a step, and how likely it is: seconds, minutes, 5, 10, 15 and 30 minutes, hours, days, weeks, months,
#: quarters, years.
_DAYS = (1 / 86400, 1 / 1440, 5 / 1440, 1 / 144, 1 / 96, 1 / 48, 1 / 24, 1.0, 7.0, 30.4369, 91.3107, 365.2425)
_LIKELY = (1, 2, 2, 3, 4, 3, 8, 6, 4, 4, 2, 1)
#: Days in a cycle, its harmonics, and the largest strength of the cycle at each of the steps above.
_CYCLES = (
    (1 / 1440, 10, (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
    (1 / 24, 10, (0.2, 1, 1, 1, 0.5, 0.2, 0, 0, 0, 0, 0, 0)),
    (1.0, 10, (0.2, 0.5, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0)),
    (7.0, 4, (0, 0.2, 0.3, 0.4, 0.5, 0.5, 0.6, 1, 0, 0, 0, 0)),
    (30.4369, 10, (0, 0, 0, 0, 0, 0, 0.1, 0.2, 0.3, 0, 0, 0)),
    (365.2425, 6, (0, 0, 0, 0, 0, 0, 0.1, 0.5, 0.6, 0.7, 1, 0)),
)


@register_prior("forecast_pfn")
def forecast_pfn(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw two series of trend, seasons and noise and blend one into the other, half of them by a jump in time.

    The step is one of seconds to years, the cycles those that a calendar gives it. Trends are linear times exponential;
    seasons multiply or are added; noise is Weibull with median 1, multiplied.
    """
    time = steps(generator, length)
    first = _trend_times_season(count, length, generator)
    second = _trend_times_season(count, length, generator)
    # 10 % of the second at a fifth of the length, 90 % at four fifths, as published.
    ramp = torch.sigmoid((time / length - 0.5) * (2 * math.log(9) / 0.6))
    blended = first * (1 - ramp) + second * ramp
    return torch.where(chance(generator, (count, 1), 0.3), blended, first)


def _trend_times_season(count: int, length: int, generator: torch.Generator) -> Tensor:
    one = (count, 1)
    kind = categories(generator, (count,), _LIKELY)
    step = torch.tensor(_DAYS, device=generator.device)[kind].unsqueeze(1)
    time = steps(generator, length)
    share = time / length - uniform(generator, one, -0.1, 0.5)
    linear = 1 + share * normal(generator, one, 0, 0.6)
    growth = torch.exp(share * normal(generator, one, 0, 0.5).clamp(-math.log(10), math.log(10)))
    trend = linear * growth
    days = (time + (uniform(generator, one) * 3650 / step).floor()) * step
    season = torch.zeros(count, length, device=generator.device)
    product = torch.ones_like(season)
    for cycle, harmonics, strengths in _CYCLES:
        strength = uniform(generator, one) * torch.tensor(strengths, device=generator.device)[kind].unsqueeze(1)
        wave = strength * _cycle(generator, days / cycle, harmonics)
        season, product = season + wave, product * (1 + wave)
    spread = (
        torch.tensor([0.0, 0.2, 0.7], device=generator.device),
        torch.tensor([0.1, 0.3, 0.2], device=generator.device),
    )
    which = categories(generator, one, (0.6, 0.3, 0.1))
    noise = spread[0][which] + spread[1][which] * uniform(generator, one)
    shape = uniform(generator, one, 1, 5)
    weibull = (-torch.log(uniform(generator, (count, length), 1e-6, 1.0)) / math.log(2)) ** (1 / shape)
    value = torch.where(chance(generator, one, 0.5), trend * product, trend + season)
    return (value * (1 + noise * (weibull - 1))).clamp(-300, 300)


def _cycle(generator: torch.Generator, phase: Tensor, harmonics: int) -> Tensor:
    """Return a random Fourier sum of norm 1 at ``phase`` in cycles, (count, length)."""
    count = len(phase)
    order = torch.arange(1, harmonics + 1, device=generator.device, dtype=torch.float32)
    falling = torch.where(chance(generator, (count, 1), 0.5), 1 / order, torch.ones_like(order))
    weights = normal(generator, (count, 2, harmonics)) * falling.unsqueeze(1)
    weights = weights / weights.square().sum((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
    # Phases in double precision: ten years of seconds are 3e8 cycles of nothing.
    turn = (2 * math.pi) * (phase.double().unsqueeze(-1) * order).frac().float()
    return (torch.sin(turn) @ weights[:, 0].unsqueeze(-1) + torch.cos(turn) @ weights[:, 1].unsqueeze(-1)).squeeze(-1)
