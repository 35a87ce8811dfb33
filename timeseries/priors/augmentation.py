"""What is done to drawn series to make others of them: mixing, turning, modulating, censoring (TempoPFN; TSMixup)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .curves import scaled
from .draws import chance, integers, log_uniform, normal, sign, steps, uniform


def mix(series: Tensor, generator: torch.Generator, probability: float = 0.25) -> Tensor:
    """Return series (count, length) of mean 0 and deviation 1, some of which are weighted sums of two or three."""
    series = scaled(series)
    count = len(series)
    weights = uniform(generator, (count, 3), 1e-4, 1).log().neg()  # exponential: normalised, uniform on the simplex
    weights[:, 2] *= chance(generator, (count,), 0.4)
    weights = weights / weights.sum(1, keepdim=True)
    total = weights[:, :1] * series
    for index in (1, 2):
        other = series[torch.randperm(count, generator=generator, device=generator.device)]
        total = total + weights[:, index : index + 1] * other
    return torch.where(chance(generator, (count, 1), probability), scaled(total), series)


def augment(series: Tensor, generator: torch.Generator) -> Tensor:
    """Return series (count, length) of mean 0 and deviation 1, each changed by none, one or several of: turned upside
    down (0.4), run backwards (0.1), modulated in amplitude (0.1), exponentiated (0.1), on a line (0.1), with spikes
    (0.05), censored (0.05), rounded (0.05), with noise (0.15)."""
    count, length = series.shape
    one = (count, 1)
    share = steps(generator, length) / length
    series = scaled(series)
    series = torch.where(chance(generator, one, 0.4), -series, series)
    series = torch.where(chance(generator, one, 0.1), series.flip(1), series)
    slow = torch.sin(2 * math.pi * (uniform(generator, one, 0.3, 3) * share + uniform(generator, one)))
    series = torch.where(chance(generator, one, 0.1), series * (1 + uniform(generator, one, 0.2, 0.9) * slow), series)
    series = torch.where(
        chance(generator, one, 0.1), scaled((uniform(generator, one, 0.2, 1.0) * series.clamp(-4, 4)).exp()), series
    )
    line = sign(generator, one) * log_uniform(generator, one, 0.2, 4) * share
    series = torch.where(chance(generator, one, 0.1), series + line, series)
    spiked = (uniform(generator, (count, length)) < log_uniform(generator, one, 0.002, 0.03)).float()
    spiked = spiked * sign(generator, one) * uniform(generator, (count, length), 1, 6)
    series = torch.where(chance(generator, one, 0.05), series + spiked, series)
    low, high = uniform(generator, one, -2, -0.5), uniform(generator, one, 0.5, 2)
    series = torch.where(chance(generator, one, 0.05), series.clamp(low, high), series)
    grid = integers(generator, one, 3, 30) / 4.0
    series = torch.where(chance(generator, one, 0.05), (series * grid).round() / grid, series)
    noise = log_uniform(generator, one, 0.01, 0.5) * normal(generator, (count, length))
    return scaled(torch.where(chance(generator, one, 0.15), series + noise, series))


def hide(count: int, length: int, generator: torch.Generator, shortest: int = 24) -> Tensor:
    """Return what is observed of histories, bool (count, length).

    A third begin late (at a log-uniform length from ``shortest``), a tenth lack 1 to 30 % of their steps, a twentieth
    a block of up to a quarter of them. The last step is observed.
    """
    one = (count, 1)
    time = steps(generator, length)
    rows = log_uniform(generator, one, min(shortest, length), length + 1.0)
    rows = torch.where(chance(generator, one, 0.33), rows, float(length))
    observed = time >= length - rows
    scattered = uniform(generator, (count, length)) < log_uniform(generator, one, 0.01, 0.3)
    observed = observed & ~(scattered & chance(generator, one, 0.1))
    begin = length - uniform(generator, one) * rows
    block = (time >= begin) & (time < begin + uniform(generator, one, 0.01, 0.25) * rows)
    observed = observed & ~(block & chance(generator, one, 0.05))
    observed[:, -1] = True
    return observed
