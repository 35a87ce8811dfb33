"""Compiled kernels of the linear scan for the CPU. Imports numba: import this module on first use only.

One call runs some sequences over one block of channels; tokens of all sequences lie in one axis. Rows are cut out
before the loops over channels, which else do not vectorise.
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
    stop = channel + width
    stride = -1 if reverse else 1
    for sequence in range(first, last):
        length = offsets[sequence + 1] - offsets[sequence]
        t = offsets[sequence + 1] - 1 if reverse else offsets[sequence]
        before, after = initial[sequence, channel:stop], final[sequence, channel:stop]
        for k in range(width):
            h[k] = before[k]
        for _ in range(length):
            factors, inputs, out = a[t, channel:stop], x[t, channel:stop], y[t, channel:stop]
            for k in range(width):
                value = factors[k] * h[k] + inputs[k]
                h[k] = value
                out[k] = value
            t += stride
        for k in range(width):
            after[k] = h[k]


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
    stop = channel + width
    stride = 1 if reverse else -1
    for sequence in range(first, last):
        begin, end = offsets[sequence], offsets[sequence + 1]
        t = begin if reverse else end - 1
        after = grad_final[sequence, channel:stop]
        for k in range(width):
            carry[k] = after[k]
        for step in range(end - begin):
            last = step == end - begin - 1
            state = initial[sequence, channel:stop] if last else y[t + stride, channel:stop]
            factors, grad = a[t, channel:stop], grad_y[t, channel:stop]
            to_x, to_a = grad_x[t, channel:stop], grad_a[t, channel:stop]
            for k in range(width):
                g = grad[k] + carry[k]
                to_x[k] = g
                to_a[k] = g * np.conj(state[k])
                carry[k] = np.conj(factors[k]) * g
            t += stride
        to_initial = grad_initial[sequence, channel:stop]
        for k in range(width):
            to_initial[k] = carry[k]
