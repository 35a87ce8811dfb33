# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""What the Triton kernels share: the device's size, elementwise functions, and sums over programs."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)


@functools.cache
def multiprocessors(index: int) -> int:
    """The number of multiprocessors of a GPU; 1 stands for Triton's interpreter."""
    return torch.cuda.get_device_properties(index).multi_processor_count if torch.cuda.is_available() else 1


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up; ``triton.cdiv`` takes ten times as long, for it also serves kernels."""
    return -(-a // b)


def power_of_two(number: int) -> int:
    """The least power of two (1 or more) that is no smaller than a number."""
    return 1 << max(number - 1, 0).bit_length()


@triton.jit
def softplus(x):
    """log(1 + exp(x)) in float32, accurate to rounding for every x: the step sizes are tiny numbers that matter.

    With e = exp(-|x|) ≤ 1 it is max(x, 0) + log(1 + e), and log(1 + e) / e is a polynomial (interpolation in the
    Chebyshev points of [0, 1], relative error 3.4e-8).
    """
    e = tl.exp2(tl.abs(x) * -LOG2_E)
    p = e * 0.005126102123 - 0.02907406461
    p = p * e + 0.07751608662
    p = p * e - 0.1360224761
    p = p * e + 0.1907688073
    p = p * e - 0.2483539899
    p = p * e + 0.3331812171
    p = p * e - 0.4999944498
    p = p * e + 0.9999999659
    return tl.maximum(x, 0.0) + p * e


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) in five instructions: the square of an inverse square root, where a division takes six alone.

    exp overflows to infinity for very negative x, which gives the right 0.
    """
    root = tl.rsqrt(1.0 + tl.exp2(x * -LOG2_E))
    return root * root


@triton.jit
def silu(x):
    """x · sigmoid(x)."""
    return x * sigmoid(x)


@triton.jit
def _add_up(
    shares, grad_weight, grad_bias, programs, dim,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """One row of the shares of all programs, for a block of channels, always in the same order."""
    channel = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    row = tl.program_id(1)
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    for start in range(0, programs, ROWS):
        program = start + tl.arange(0, ROWS)[:, None]
        place = (program.to(tl.int64) * (WIDTH + 1) + row) * dim + channel
        total += tl.load(shares + place, (program < programs) & (channel < dim), 0.0)
    total = tl.sum(total, axis=0)[None, :]
    if row < WIDTH:
        tl.store(grad_weight + channel * WIDTH + row, total.to(grad_weight.dtype.element_ty), channel < dim)
    else:
        tl.store(grad_bias + channel, total.to(grad_bias.dtype.element_ty), channel < dim)


def add_shares(shares: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The gradients of a weight (dim,) or (dim, width) and of a bias (dim,) from every program's share of them.

    ``shares`` is (programs, width + 1, dim) in float32, the bias last; without one that row is not read.
    """
    programs, rows, dim = shares.shape
    grad_weight = torch.empty(weight.shape, dtype=weight.dtype, device=shares.device)
    grad_bias = None if bias is None else torch.empty(bias.shape, dtype=bias.dtype, device=shares.device)
    _add_up[(ceil_div(dim, 32), rows - (bias is None))](
        shares, grad_weight, shares if grad_bias is None else grad_bias, programs, dim,
        WIDTH=rows - 1, ROWS=128, CHANNELS=32, num_warps=8,
    )  # fmt: skip
    return grad_weight, grad_bias
