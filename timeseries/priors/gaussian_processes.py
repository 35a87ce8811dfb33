"""Samples of Gaussian processes whose kernels are drawn: KernelSynth (Ansari et al. 2024, "Chronos", arXiv:2403.07815)
and TempoPFN's prior."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .draws import categories, chance, choice, integers, normal, uniform
from .periods import draw_period
from .registry import register_prior

#: Longest exact sample; longer series are interpolated linearly between as many points.
_POINTS = 1536
#: Series drawn from one kernel at most, where many are drawn: the factorisation is what costs.
_SHARE = 32
#: Kernels at once; each is a matrix of points by points.
_KERNELS = 32
#: Added to the diagonal, in units of the kernel's mean variance.
_JITTER = 1e-3

_PERIODS = (24, 48, 96, 168, 336, 672, 7, 14, 30, 60, 365, 730, 4, 26, 52, 6, 12, 40, 10)


@register_prior("kernel_synth")
def kernel_synth(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw from a Gaussian process with 1 to 5 kernels of a bank, joined by random sums and products.

    The bank: periodic (of 19 periods in steps), linear, squared exponential, rational quadratic, white, constant. Of
    many series some share a kernel.
    """
    return _in_parts(_bank_of_kernels, count, length, generator)


def _bank_of_kernels(kernels: int, points: int, length: int, generator: torch.Generator) -> Tensor:
    """Return kernels of sums and products of the bank, (kernels, points, points)."""
    kernel = None
    number = integers(generator, (kernels,), 1, 5).view(-1, 1, 1)
    for index in range(5):
        one = _bank_kernel(kernels, points, length, generator)
        if kernel is None:
            kernel = one
            continue
        joined = torch.where(chance(generator, (kernels, 1, 1), 0.5), kernel + one, kernel * one)
        kernel = torch.where(number > index, joined, kernel)
    assert kernel is not None
    return kernel


@register_prior("gaussian_process")
def gaussian_process(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw from a Gaussian process with 1 to 6 of Matérn, linear and periodic kernels, periodic ones most likely,
    joined by random sums and products. Periods are those of calendars, about their usual length."""
    return _in_parts(_smooth_and_periodic, count, length, generator)


def _smooth_and_periodic(kernels: int, points: int, length: int, generator: torch.Generator) -> Tensor:
    """Return kernels of sums and products of Matérn, linear and periodic ones, (kernels, points, points)."""
    shape = (kernels, 1, 1)
    grid = torch.linspace(0, 1, points, device=generator.device)
    apart = (grid[:, None] - grid).abs()
    kernel = None
    number = integers(generator, (kernels,), 1, 6).view(-1, 1, 1)
    for index in range(6):
        kind = categories(generator, (kernels,), (0.5, 0.5, 0.5, 1.0, 5.0)).view(-1, 1, 1)
        scale = uniform(generator, shape, 0.1, 5) * apart.new_tensor(0.2)
        r = apart / scale
        r3, r5 = math.sqrt(3) * r, math.sqrt(5) * r
        period = draw_period(generator, shape, length)
        period = (period + period.sqrt() ** 0.5 * normal(generator, shape)).clamp(min=2.5)
        wave = torch.sin(math.pi * apart * length / period) / uniform(generator, shape, 0.3, 2)
        matern = torch.where(kind == 0, (-r).exp(), torch.where(kind == 1, (1 + r3) * (-r3).exp(),
                                                                 (1 + r5 + r5 * r5 / 3) * (-r5).exp()))  # fmt: skip
        linear = (grid[:, None] - 0.5) * (grid - 0.5) * 4
        one = torch.where(kind < 3, matern, torch.where(kind == 3, linear, (-2 * wave * wave).exp()))
        one = one * uniform(generator, shape, 0.2, 1.5)
        if kernel is None:
            kernel = one
            continue
        joined = torch.where(chance(generator, shape, 0.6), kernel + one, kernel * one)
        kernel = torch.where(number > index, joined, kernel)
    assert kernel is not None
    return kernel


def _bank_kernel(kernels: int, points: int, length: int, generator: torch.Generator) -> Tensor:
    """Return one kernel of the bank for each of ``kernels``, (kernels, points, points), on [0, 1]."""
    shape = (kernels, 1, 1)
    grid = torch.linspace(0, 1, points, device=generator.device)
    apart = (grid[:, None] - grid).abs()
    kind = categories(generator, (kernels,), (19, 3, 3, 3, 2, 1)).view(shape)
    three = choice(generator, shape, (0.1, 1.0, 10.0))
    period = choice(generator, shape, _PERIODS) / length
    wave = torch.sin(math.pi * apart / period)
    white = torch.eye(points, device=generator.device) * torch.where(chance(generator, shape, 0.5), 0.1, 1.0)
    linear = torch.where(three == 0.1, 0.0, three).square() + grid[:, None] * grid
    result = torch.where(kind == 0, (-2 * wave * wave).exp(), linear)
    result = torch.where(kind == 2, (-0.5 * (apart / three).square()).exp(), result)
    result = torch.where(kind == 3, (1 + apart.square() / (2 * three)) ** (-three), result)
    result = torch.where(kind == 4, white, result)
    return torch.where(kind == 5, torch.ones_like(result), result)


def _in_parts(
    draw_kernels: Callable[[int, int, int, torch.Generator], Tensor],
    count: int,
    length: int,
    generator: torch.Generator,
) -> Tensor:
    """Draw ``count`` series of ``length`` steps from kernels of :data:`_POINTS` points at most."""
    share = max(1, min(_SHARE, count // 8))
    points = min(length, _POINTS)
    kernels = -(-count // share)
    parts = [
        _sample(draw_kernels(min(_KERNELS, kernels - begin), points, length, generator), share, generator)
        for begin in range(0, kernels, _KERNELS)
    ]
    series = torch.cat(parts)
    series = series[torch.randperm(len(series), generator=generator, device=generator.device)[:count]]
    if points == length:
        return series
    return torch.nn.functional.interpolate(series.unsqueeze(1), size=length, mode="linear", align_corners=True)[:, 0]


def _sample(kernel: Tensor, share: int, generator: torch.Generator) -> Tensor:
    """Draw ``share`` series of each kernel (kernels, points, points): (kernels · share, points)."""
    points = kernel.shape[-1]
    variance = kernel.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-6).view(-1, 1, 1)
    identity = torch.eye(points, device=kernel.device)
    factor, failed = torch.linalg.cholesky_ex(kernel / variance + _JITTER * identity)
    # Rounding can cost a kernel its definiteness: its series become noise.
    sound = (failed == 0) & factor.isfinite().all(-1).all(-1)
    factor = torch.where(sound.view(-1, 1, 1), factor, identity)
    drawn = factor @ normal(generator, (len(kernel), points, share))
    return drawn.transpose(1, 2).reshape(-1, points)
