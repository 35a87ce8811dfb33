"""Diagonal recurrences of constant factors as convolutions: their kernels, and the states that they end in.

``s_t = z s_{t-1} + u_t`` is the convolution with z^l. The logarithm of z is taken in float64 of z as it is rounded, so
that the convolution and the recurrence step by step agree at any length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops import vandermonde, vandermonde_moments
from ..ops._dtypes import complex_dtype


def _logarithm(base: Tensor, channels: int) -> Tensor:
    """(channels or 1, states) real and positive, or complex and not zero, to (channels, states) complex128."""
    return base.to(torch.complex128).log().expand(channels, -1)


def exponential_kernel(coefficients: Tensor, base: Tensor, length: int) -> Tensor:
    """Return ``K[l] = Re sum_n c_n z_n^l`` for l = 0 … length - 1, (…, channels, length).

    Args:
        coefficients: c (channels, states) or (batch, channels, states), real or complex like ``base``.
        base: z (channels, states), or (1, states) shared by all channels.
        length: at least 1.
    """
    batched = coefficients if coefficients.dim() == 3 else coefficients[None]
    if not batched.is_complex():
        batched = batched.to(complex_dtype(batched.dtype))
    kernels = vandermonde(batched / 2, _logarithm(base, batched.shape[1]), length)
    return kernels if coefficients.dim() == 3 else kernels[0]


def exponential_state(u: Tensor, base: Tensor) -> Tensor:
    """Return ``sum_t z_n^(length - 1 - t) u_t``, the state after the last token, (batch, channels, states).

    Args:
        u: (batch, length, channels), real.
        base: as in :func:`exponential_kernel`; the result is real or complex as it is.
    """
    moments = vandermonde_moments(u.flip(1).transpose(1, 2), _logarithm(base, u.shape[2]))
    return moments if base.is_complex() else moments.real


def power(base: Tensor, exponent: int) -> Tensor:
    """Return z^exponent in the dtype of ``base``, with the exponent taken in float64."""
    wide = torch.exp(exponent * base.to(torch.complex128).log())
    return (wide if base.is_complex() else wide.real).to(base.dtype)
