"""Compiled kernels of the Cauchy sums for the CPU. Imports numba: import this module on first use only.

One call takes one channel and a range of frequencies. The fractions of WIDTH frequencies with one pole live in small
buffers, from which all coefficients take their share. Poles and frequencies are float64, and so are the differences
that nearly vanish at a resonance; the rest is in the dtype of the coefficients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .._numba_math import FAST

#: Frequencies worked on at once.
WIDTH = 128

Array = Any


@njit(**FAST)
def _fractions(
    begin: int, width: int, real: float, imaginary: float, frequencies: Array, scales: Array, tables: Array
) -> None:
    """Write the real and imaginary parts of 1 / (i w - s p) and of the same for conj(p) into tables (4, WIDTH)."""
    w, s = frequencies[begin : begin + width], scales[begin : begin + width]
    a, b, c, d = tables[0], tables[1], tables[2], tables[3]
    kind = tables.dtype.type
    one = kind(1)
    for j in range(width):
        decay = kind(-s[j] * real)
        below, above = kind(w[j] - s[j] * imaginary), kind(w[j] + s[j] * imaginary)
        first, second = one / (decay * decay + below * below), one / (decay * decay + above * above)
        a[j] = decay * first
        b[j] = -below * first
        c[j] = decay * second
        d[j] = -above * second


@njit(**FAST)
def forward(
    channel: int, start: int, stop: int, v: Array, p: Array, frequencies: Array, scales: Array, out: Array
) -> None:
    """out (channels, dim, number, 2) from v (channels, dim, state, 2) and p (dim, state, 2)."""
    channels, _, state, _ = v.shape
    tables = np.empty((4, WIDTH), v.dtype)
    real, imaginary = np.empty((channels, WIDTH), v.dtype), np.empty((channels, WIDTH), v.dtype)
    for begin in range(start, stop, WIDTH):
        width = min(WIDTH, stop - begin)
        real[:] = 0
        imaginary[:] = 0
        for n in range(state):
            _fractions(begin, width, p[channel, n, 0], p[channel, n, 1], frequencies, scales, tables)
            a, b, c, d = tables[0], tables[1], tables[2], tables[3]
            for k in range(channels):
                x, y = v[k, channel, n, 0], v[k, channel, n, 1]
                to_real, to_imaginary = real[k], imaginary[k]
                for j in range(width):
                    to_real[j] += x * (a[j] + c[j]) + y * (d[j] - b[j])
                    to_imaginary[j] += x * (b[j] + d[j]) + y * (a[j] - c[j])
        for k in range(channels):
            result = out[k, channel, begin : begin + width]
            for j in range(width):
                result[j, 0] = real[k, j]
                result[j, 1] = imaginary[k, j]


@njit(**FAST)
def backward(
    channel: int, start: int, stop: int, p: Array, frequencies: Array, scales: Array, grad: Array, sums: Array
) -> None:
    """Add to sums (2, channels, state, 2), in float64; see ``chunked.backward``."""
    channels, state = grad.shape[0], p.shape[1]
    tables = np.empty((4, WIDTH), grad.dtype)
    real, imaginary = np.empty((channels, WIDTH), grad.dtype), np.empty((channels, WIDTH), grad.dtype)
    scale = np.empty(WIDTH, grad.dtype)
    a, b, c, d = tables[0], tables[1], tables[2], tables[3]
    zero, two = grad.dtype.type(0), grad.dtype.type(2)
    for begin in range(start, stop, WIDTH):
        width = min(WIDTH, stop - begin)
        for j in range(width):
            scale[j] = scales[begin + j]
        for k in range(channels):
            given = grad[k, channel, begin : begin + width]
            for j in range(width):
                real[k, j] = given[j, 0]
                imaginary[k, j] = given[j, 1]
        for n in range(state):
            _fractions(begin, width, p[channel, n, 0], p[channel, n, 1], frequencies, scales, tables)
            for power in range(2):
                if power == 1:
                    for j in range(width):
                        x, y = a[j], b[j]
                        a[j] = scale[j] * (x * x - y * y)
                        b[j] = scale[j] * two * x * y
                        x, y = c[j], d[j]
                        c[j] = scale[j] * (x * x - y * y)
                        d[j] = scale[j] * two * x * y
                for k in range(channels):
                    g, h = real[k], imaginary[k]
                    total_real, total_imaginary = zero, zero
                    for j in range(width):
                        total_real += g[j] * (a[j] + c[j]) + h[j] * (b[j] + d[j])
                        total_imaginary += g[j] * (d[j] - b[j]) + h[j] * (a[j] - c[j])
                    sums[power, k, n, 0] += total_real
                    sums[power, k, n, 1] += total_imaginary
