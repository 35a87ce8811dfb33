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

    log(1 + e) = 2 artanh(e / (2 + e)) with e = exp(-|x|) ≤ 1, where the series of artanh needs six terms.
    """
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)
    q = s * s
    p = 1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13))))))
    return tl.maximum(x, 0.0) + 2.0 * s * p


@triton.jit
def silu(x):
    """x / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives the right 0."""
    return x / (1.0 + tl.exp(-x))
