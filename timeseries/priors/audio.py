"""Series as synthesisers make them (TempoPFN's audio-inspired priors, on a time base of steps instead of 44.1 kHz)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .curves import recurrence, scaled
from .draws import chance, integers, log_uniform, normal, steps, uniform
from .registry import register_prior

_TURN = 2 * math.pi


@register_prior("financial_volatility")
def financial_volatility(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw brown noise whose volatility follows its own size, on a slow oscillation, with jumps that ring out."""
    one, shape = (count, 1), (count, length)
    time = steps(generator, length)
    slow = torch.sin(_TURN * (time / log_uniform(generator, one, length / 8, 2 * length) + uniform(generator, one)))
    noise = normal(generator, shape)
    followed = recurrence(uniform(generator, one, 0.9, 0.99), 0.05 * noise.abs())
    brown = recurrence(torch.full(one, 0.995, device=generator.device), noise * (0.2 + followed))
    return (
        uniform(generator, one, 0, 1) * slow
        + uniform(generator, one, 0.1, 0.8) * scaled(brown)
        + _ringing(generator, count, length)
    )


@register_prior("fractal")
def fractal(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw brown noise through 3 to 6 resonances, each at half the frequency of the one before and weaker."""
    one = (count, 1)
    brown = recurrence(torch.full(one, 0.999, device=generator.device), normal(generator, (count, length)))
    spectrum = torch.fft.rfft(scaled(brown), n=2 * length)
    frequency = torch.fft.rfftfreq(2 * length, device=generator.device)
    centre, gain = log_uniform(generator, one, 0.02, 0.4), uniform(generator, one, 0.5, 0.8)
    number = integers(generator, one, 3, 6)
    response = torch.zeros(count, len(frequency), dtype=torch.complex64, device=generator.device)
    for index in range(6):
        ratio = frequency / (centre / 2**index)
        damping = 1j * ratio / uniform(generator, one, 0.5, 3)
        response = response + (index < number) * gain**index / (1 - ratio * ratio + damping)
    return scaled(torch.fft.irfft(spectrum * response, n=2 * length)[:, :length])


@register_prior("rhythm")
def rhythm(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw 3 to 5 layers of decaying tones at multiples of one tempo."""
    time = steps(generator, length)
    beat = log_uniform(generator, (count, 1), 24, 200)
    number = integers(generator, (count, 1), 3, 5)
    factors = torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0, 8.0], device=generator.device)
    total = torch.zeros(count, length, device=generator.device)
    for index in range(5):
        interval = (beat / factors[integers(generator, (count, 1), 0, 5)]).clamp(min=3)
        since = (time + uniform(generator, (count, 1)) * interval) % interval
        tone = torch.sin(_TURN * since / log_uniform(generator, (count, 1), 4, 60))
        decay = (-since / (interval * uniform(generator, (count, 1), 0.1, 0.6))).exp()
        total = total + (index < number) * uniform(generator, (count, 1), 0.3, 1) * decay * tone
    return total + uniform(generator, (count, 1), 0, 0.1) * normal(generator, (count, length))


@register_prior("network_traffic")
def network_traffic(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw a traffic wave with bursts of noise, dips of congestion, square overhead and attacks that ebb away."""
    one, shape = (count, 1), (count, length)
    time = steps(generator, length)
    wave = torch.sin(_TURN * (time / log_uniform(generator, one, 20, length / 2) + uniform(generator, one)))
    burst = log_uniform(generator, one, 8, 60)
    envelope = (-((time + uniform(generator, one) * burst) % burst) / (0.2 * burst)).exp()
    dips = recurrence(uniform(generator, one, 0.8, 0.97), -(uniform(generator, shape) < 0.01).float())
    square = torch.sign(torch.sin(_TURN * time / log_uniform(generator, one, 4, 20)))
    attacks = recurrence(uniform(generator, one, 0.9, 0.99), (uniform(generator, shape) < 0.004).float())
    parts = (wave, envelope * normal(generator, shape).abs(), dips, square, attacks)
    sizes = ((0.3, 1), (0.1, 0.8), (0.2, 1), (0, 0.2), (0.5, 3))
    return sum(
        (uniform(generator, one, *size) * part for size, part in zip(sizes, parts, strict=True)),
        torch.zeros(shape, device=generator.device),
    )


def _ringing(generator: torch.Generator, count: int, length: int) -> Tensor:
    """Return jumps that oscillate and die out, (count, length); none in half of the series."""
    one = (count, 1)
    starts = (uniform(generator, (count, length)) < log_uniform(generator, one, 0.002, 0.02)).float()
    starts = starts * normal(generator, (count, length)) * chance(generator, one, 0.5)
    lag = steps(generator, length)
    kernel = (-lag / log_uniform(generator, one, 5, 60)).exp() * torch.cos(_TURN * lag / uniform(generator, one, 4, 40))
    spectrum = torch.fft.rfft(starts, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[:, :length]
