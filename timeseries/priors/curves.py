"""What the generators are made of: ramps, levels that change, decaying memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.ops import linear_scan
from .draws import chance, normal, uniform


def recurrence(factor: Tensor, inputs: Tensor) -> Tensor:
    """Return x_t = factor_t x_{t-1} + inputs_t from x_{-1} = 0, (count, length) each."""
    found = linear_scan(factor.expand_as(inputs).unsqueeze(-1).contiguous(), inputs.unsqueeze(-1).contiguous())
    assert isinstance(found, Tensor)
    return found.squeeze(-1)


def levels(generator: torch.Generator, count: int, length: int, rate: Tensor, size: Tensor) -> Tensor:
    """Return steps: at each time a jump of N(0, size²) with probability ``rate``; both (count, 1)."""
    jumps = uniform(generator, (count, length)) < rate
    return torch.where(jumps, size * normal(generator, (count, length)), 0.0).cumsum(1)


def random_walk(generator: torch.Generator, count: int, length: int) -> Tensor:
    """Return cumulated N(0, 1), (count, length)."""
    return normal(generator, (count, length)).cumsum(1)


def scaled(series: Tensor) -> Tensor:
    """Return series of mean 0 and deviation 1, those without any deviation as 0."""
    centred = series - series.mean(1, keepdim=True)
    spread = centred.square().mean(1, keepdim=True).sqrt()
    return torch.where(spread > 1e-6, centred / spread.clamp(min=1e-6), 0.0)


def sometimes(generator: torch.Generator, series: Tensor, probability: float) -> Tensor:
    """Return each series with ``probability``, else 0."""
    return torch.where(chance(generator, (len(series), 1), probability), series, 0.0)


def logistic(time: Tensor, middle: Tensor, width: Tensor) -> Tensor:
    """Return a ramp from 0 to 1 around ``middle``."""
    return torch.sigmoid((time - middle) / width)
