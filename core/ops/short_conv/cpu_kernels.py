"""Compiled kernels of the short convolution for the CPU. Imports numba: import this module on first use only.

One call runs some sequences over one block of channels; tokens of all sequences lie in one axis. Step i of a sequence
reads the inputs of steps i - width + 1 to i, the steps before 0 being the rows of the state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .._numba_math import FAST, sigmoid

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
    silu: bool,
    x: Array,
    weight: Array,
    bias: Array,
    initial: Array,
    y: Array,
    final: Array,
) -> None:
    """Sequences ``first`` to ``last``: writes y (tokens, dim) and final (sequences, taps - 1, dim)."""
    taps = weight.shape[0]
    sums = np.zeros(WIDTH, x.dtype)
    stride = -1 if reverse else 1
    for sequence in range(first, last):
        length = offsets[sequence + 1] - offsets[sequence]
        origin = offsets[sequence + 1] - 1 if reverse else offsets[sequence]
        for i in range(length):
            t = origin + stride * i
            for k in range(width):
                sums[k] = bias[channel + k]
            for tap in range(taps):
                step = i - (taps - 1) + tap
                if step >= 0:
                    source = origin + stride * step
                    for k in range(width):
                        sums[k] += weight[tap, channel + k] * x[source, channel + k]
                else:
                    for k in range(width):
                        sums[k] += weight[tap, channel + k] * initial[sequence, taps - 1 + step, channel + k]
            if silu:
                for k in range(width):
                    y[t, channel + k] = sums[k] * sigmoid(sums[k])
            else:
                for k in range(width):
                    y[t, channel + k] = sums[k]
        for row in range(taps - 1):
            step = length - (taps - 1) + row
            for k in range(width):
                if step >= 0:
                    final[sequence, row, channel + k] = x[origin + stride * step, channel + k]
                else:
                    final[sequence, row, channel + k] = initial[sequence, taps - 1 + step, channel + k]


@njit(**FAST)
def backward(
    first: int,
    last: int,
    part: int,
    channel: int,
    width: int,
    offsets: Array,
    reverse: bool,
    silu: bool,
    x: Array,
    weight: Array,
    bias: Array,
    initial: Array,
    grad_y: Array,
    grad_final: Array,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
    grad_initial: Array,
) -> None:
    """The adjoint; grad_weight (parts, taps, dim) and grad_bias (parts, dim) are summed over parts afterwards."""
    taps = weight.shape[0]
    one = type(x[0, 0])(1)
    sums = np.zeros(WIDTH, x.dtype)
    sum_bias = np.zeros(WIDTH, x.dtype)
    sum_weight = np.zeros((taps, WIDTH), x.dtype)
    stride = -1 if reverse else 1
    for sequence in range(first, last):
        length = offsets[sequence + 1] - offsets[sequence]
        origin = offsets[sequence + 1] - 1 if reverse else offsets[sequence]
        for row in range(taps - 1):
            for k in range(width):
                grad_initial[sequence, row, channel + k] = 0
        for i in range(length):
            t = origin + stride * i
            if silu:
                for k in range(width):
                    sums[k] = bias[channel + k]
                for tap in range(taps):
                    step = i - (taps - 1) + tap
                    if step >= 0:
                        source = origin + stride * step
                        for k in range(width):
                            sums[k] += weight[tap, channel + k] * x[source, channel + k]
                    else:
                        for k in range(width):
                            sums[k] += weight[tap, channel + k] * initial[sequence, taps - 1 + step, channel + k]
                for k in range(width):
                    s = sigmoid(sums[k])
                    sums[k] = grad_y[t, channel + k] * s * (one + sums[k] * (one - s))
            else:
                for k in range(width):
                    sums[k] = grad_y[t, channel + k]
            for k in range(width):
                sum_bias[k] += sums[k]
                grad_x[t, channel + k] = weight[taps - 1, channel + k] * sums[k]
                sum_weight[taps - 1, k] += sums[k] * x[t, channel + k]
            for tap in range(taps - 1):
                step = i - (taps - 1) + tap
                if step >= 0:
                    source = origin + stride * step
                    for k in range(width):
                        grad_x[source, channel + k] += weight[tap, channel + k] * sums[k]
                        sum_weight[tap, k] += sums[k] * x[source, channel + k]
                else:
                    row = taps - 1 + step
                    for k in range(width):
                        grad_initial[sequence, row, channel + k] += weight[tap, channel + k] * sums[k]
                        sum_weight[tap, k] += sums[k] * initial[sequence, row, channel + k]
        for row in range(taps - 1):
            step = length - (taps - 1) + row
            for k in range(width):
                if step >= 0:
                    grad_x[origin + stride * step, channel + k] += grad_final[sequence, row, channel + k]
                else:
                    grad_initial[sequence, taps - 1 + step, channel + k] += grad_final[sequence, row, channel + k]
    for k in range(width):
        grad_bias[part, channel + k] = sum_bias[k]
    for tap in range(taps):
        for k in range(width):
            grad_weight[part, tap, channel + k] = sum_weight[tap, k]
