"""Random numbers for the generators: tensors on the device of the generator that they are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]


def uniform(generator: torch.Generator, shape: Shape, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return uniform numbers in [low, high), float32."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def log_uniform(generator: torch.Generator, shape: Shape, low: float, high: float) -> Tensor:
    """Return numbers whose logarithm is uniform."""
    return uniform(generator, shape, math.log(low), math.log(high)).exp()


def normal(generator: torch.Generator, shape: Shape, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Return normal numbers, float32."""
    return mean + std * torch.randn(shape, generator=generator, device=generator.device)


def integers(generator: torch.Generator, shape: Shape, low: int, high: int) -> Tensor:
    """Return int64 numbers in {low, …, high}, both ends included."""
    return torch.randint(low, high + 1, shape, generator=generator, device=generator.device)


def chance(generator: torch.Generator, shape: Shape, probability: float) -> Tensor:
    """Return bool, True with ``probability``."""
    return uniform(generator, shape) < probability


def choice(
    generator: torch.Generator, shape: Shape, values: Sequence[float], weights: Sequence[float] | None = None
) -> Tensor:
    """Return ``values`` drawn with replacement, float32."""
    table = torch.tensor(list(values), dtype=torch.float32, device=generator.device)
    return table[categories(generator, shape, [1.0] * len(values) if weights is None else weights)]


def categories(generator: torch.Generator, shape: Shape, weights: Sequence[float]) -> Tensor:
    """Return int64 indices drawn in proportion to ``weights``."""
    table = torch.tensor(list(weights), dtype=torch.float32, device=generator.device)
    drawn = torch.multinomial(table, max(1, math.prod(shape)), replacement=True, generator=generator)
    return drawn.view(shape)


def sign(generator: torch.Generator, shape: Shape) -> Tensor:
    """Return -1 or 1, float32."""
    return 2.0 * chance(generator, shape, 0.5).float() - 1.0


def steps(generator: torch.Generator, length: int) -> Tensor:
    """Return 0, 1, …, length - 1, float32 (length,)."""
    return torch.arange(length, dtype=torch.float32, device=generator.device)
