"""Waves: sums of modulated sines, and sawtooths (TempoPFN, arXiv:2510.25502)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draws import chance, integers, normal, sign, steps, uniform
from .registry import register_prior


@register_prior("sines")
def sines(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw 1 to 3 sines of period 10 to 200 steps and amplitude 0.5 to 3 on a line, most with noise.

    The frequency wavers by 5 % in 8 to 15 periods and the amplitude by 10 % in 5 to 10; 70 % of the series have noise
    of 5 to 20 % of the amplitudes.
    """
    shape = (count, 3, 1)
    time = steps(generator, length)
    kept = torch.arange(3, device=generator.device).view(1, 3, 1) < integers(generator, (count, 1, 1), 1, 3)
    period = uniform(generator, shape, 10, 200)
    amplitude = torch.where(kept, uniform(generator, shape, 0.5, 3), 0.0)
    slow, slower = period * uniform(generator, shape, 8, 15), period * uniform(generator, shape, 5, 10)
    turn = 2 * math.pi
    wavering = 1 + 0.05 * torch.sin(turn * (time / slow + uniform(generator, shape)))
    phase = turn * ((wavering / period).cumsum(-1) + uniform(generator, shape))
    breathing = 1 + 0.1 * torch.sin(turn * (time / slower + uniform(generator, shape)))
    waves = (amplitude * breathing * torch.sin(phase)).sum(1)
    line = uniform(generator, (count, 1), -0.01, 0.01) * time + uniform(generator, (count, 1), 0, 2)
    noise = uniform(generator, (count, 1), 0.05, 0.2) * amplitude.sum(1) * chance(generator, (count, 1), 0.7)
    return waves + line + noise * normal(generator, (count, length))


@register_prior("sawtooth")
def sawtooth(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw sawtooths of 2 to 7 cycles, half of them falling, of amplitude 0.5 to 3, on a slight line and sine."""
    time = steps(generator, length)
    share = time / length
    cycles = integers(generator, (count, 1), 2, 7)
    ramp = (share * cycles + uniform(generator, (count, 1))).frac()
    ramp = torch.where(chance(generator, (count, 1), 0.5), ramp, 1 - ramp)
    sine = torch.sin(2 * math.pi * (integers(generator, (count, 1), 2, 4) * share + uniform(generator, (count, 1))))
    return (
        uniform(generator, (count, 1), 0.5, 3) * ramp
        + uniform(generator, (count, 1), -1e-3, 1e-3) * time
        + uniform(generator, (count, 1), 0, 0.02) * sine
    )


@register_prior("seasonal_pattern")
def seasonal_pattern(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw patterns that repeat exactly but for noise: any shape, of 4 to 200 steps, some switched by a longer cycle.

    A pattern is a random sum of 1 to 8 harmonics, half of them clipped to rest for part of the period (as traffic at
    night, or the sun). A second cycle, 4 to 8 times as long, weakens some of the shorter ones in it, as weekends do.
    """
    from .periods import draw_period

    time = steps(generator, length)
    period = draw_period(generator, (count, 1), length)
    turn = 2 * math.pi * time / period
    order = torch.arange(1, 9, device=generator.device, dtype=torch.float32).view(1, 8, 1)
    strength = normal(generator, (count, 8, 1)) / order ** uniform(generator, (count, 1, 1), 0.3, 1.5)
    strength = strength * (order <= integers(generator, (count, 1, 1), 1, 8))
    harmonics = torch.sin(order * turn.unsqueeze(1) + uniform(generator, (count, 8, 1), 0, 2 * math.pi))
    pattern = (strength * harmonics).sum(1)
    pattern = pattern / pattern.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
    rest = uniform(generator, (count, 1), -1, 0.5)
    pattern = torch.where(chance(generator, (count, 1), 0.4), torch.maximum(pattern, rest), pattern)
    longer = integers(generator, (count, 1), 4, 8)
    inner = (time / period + uniform(generator, (count, 1))).floor() % longer
    weak = inner < integers(generator, (count, 1), 1, 2)
    weakened = uniform(generator, (count, 1), 0.1, 0.9) * pattern + uniform(generator, (count, 1), -1, 0.3)
    pattern = torch.where(weak & chance(generator, (count, 1), 0.5), weakened, pattern)
    noise = uniform(generator, (count, 1), 0.0, 0.5).square() * normal(generator, (count, length))
    drift = uniform(generator, (count, 1), -1, 1) * time / length + uniform(generator, (count, 1), 0, 5)
    return sign(generator, (count, 1)) * pattern + noise + drift
