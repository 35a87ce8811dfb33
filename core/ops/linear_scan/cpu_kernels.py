"""Compiled kernels of the linear scan for the CPU. Imports numba: import this module on first use only.

One call runs some sequences over one block of channels; tokens of all sequences lie in one axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .._numba_math import FAST

#: Channels in a block: a few cache lines of every token.
WIDTH = 64

Array = Any


@njit(**FAST)
def forward(
    first: int,
    last: int,
    channel: int,
    width: int,
    offsets: Array,
    reverse: bool,
    a: Array,
    x: Array,
    initial: Array,
    y: Array,
    final: Array,
) -> None:
    """Sequences ``first`` to ``last``: writes y (tokens, dim) and final (sequences, dim)."""
    h = np.zeros(WIDTH, x.dtype)
    stride = -1 if reverse else 1
    for sequence in range(first, last):
        length = offsets[sequence + 1] - offsets[sequence]
        t = offsets[sequence + 1] - 1 if reverse else offsets[sequence]
        for k in range(width):
            h[k] = initial[sequence, channel + k]
        for _ in range(length):
            for k in range(width):
                value = a[t, channel + k] * h[k] + x[t, channel + k]
                h[k] = value
                y[t, channel + k] = value
            t += stride
        for k in range(width):
            final[sequence, channel + k] = h[k]


@njit(**FAST)
def backward(
    first: int,
    last: int,
    channel: int,
    width: int,
    offsets: Array,
    reverse: bool,
    a: Array,
    y: Array,
    initial: Array,
    grad_y: Array,
    grad_final: Array,
    grad_a: Array,
    grad_x: Array,
    grad_initial: Array,
) -> None:
    """The adjoint: g_t = dy_t + conj(a_{t+1}) g_{t+1}, dx = g, da_t = g_t conj(h_{t-1}), dh_0 = conj(a_1) g_1."""
    carry = np.zeros(WIDTH, y.dtype)
    stride = 1 if reverse else -1
    for sequence in range(first, last):
        begin, end = offsets[sequence], offsets[sequence + 1]
        t = begin if reverse else end - 1
        for k in range(width):
            carry[k] = grad_final[sequence, channel + k]
        for _ in range(end - begin - 1):
            before = t + stride
            for k in range(width):
                g = grad_y[t, channel + k] + carry[k]
                grad_x[t, channel + k] = g
                grad_a[t, channel + k] = g * np.conj(y[before, channel + k])
                carry[k] = np.conj(a[t, channel + k]) * g
            t = before
        for k in range(width):
            g = grad_y[t, channel + k] + carry[k]
            grad_x[t, channel + k] = g
            grad_a[t, channel + k] = g * np.conj(initial[sequence, channel + k])
            grad_initial[sequence, channel + k] = np.conj(a[t, channel + k]) * g
