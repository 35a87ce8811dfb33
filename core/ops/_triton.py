# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""What the Triton kernels share: the device's size, and elementwise functions."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@functools.cache
def multiprocessors(index: int) -> int:
    """The number of multiprocessors of a GPU; 1 stands for Triton's interpreter."""
    return torch.cuda.get_device_properties(index).multi_processor_count if torch.cuda.is_available() else 1


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
def silu(x):
    """x / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives the right 0."""
    return x / (1.0 + tl.exp(-x))
