"""Compiled kernels of the short convolution for the CPU. Imports numba: import this module on first use only.

One call runs some sequences over one block of channels; tokens of all sequences lie in one axis. Step i of a sequence
reads the inputs of steps i - width + 1 to i, the steps before 0 being the rows of the state.

Rows are cut out before the loops over channels: indexed as (token, channel) inside them, the same loops do not
vectorise and take ten times as long.
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
    stop = channel + width
    biases = bias[channel:stop]
    stride = -1 if reverse else 1
    for sequence in range(first, last):
        length = offsets[sequence + 1] - offsets[sequence]
        origin = offsets[sequence + 1] - 1 if reverse else offsets[sequence]
        for i in range(length):
            for k in range(width):
                sums[k] = biases[k]
            for tap in range(taps):
                step = i - (taps - 1) + tap
                if step >= 0:
                    row = x[origin + stride * step, channel:stop]
                else:
                    row = initial[sequence, taps - 1 + step, channel:stop]
                factors = weight[tap, channel:stop]
                for k in range(width):
                    sums[k] += factors[k] * row[k]
            out = y[origin + stride * i, channel:stop]
            if silu:
                for k in range(width):
                    out[k] = sums[k] * sigmoid(sums[k])
            else:
                for k in range(width):
                    out[k] = sums[k]
        for place in range(taps - 1):
            step = length - (taps - 1) + place
            if step >= 0:
                row = x[origin + stride * step, channel:stop]
            else:
                row = initial[sequence, taps - 1 + step, channel:stop]
            out = final[sequence, place, channel:stop]
            for k in range(width):
                out[k] = row[k]


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
    stop = channel + width
    biases = bias[channel:stop]
    stride = -1 if reverse else 1
    for sequence in range(first, last):
        length = offsets[sequence + 1] - offsets[sequence]
        origin = offsets[sequence + 1] - 1 if reverse else offsets[sequence]
        for place in range(taps - 1):
            target = grad_initial[sequence, place, channel:stop]
            for k in range(width):
                target[k] = 0
        for i in range(length):
            t = origin + stride * i
            grad = grad_y[t, channel:stop]
            if silu:
                for k in range(width):
                    sums[k] = biases[k]
                for tap in range(taps):
                    step = i - (taps - 1) + tap
                    if step >= 0:
                        row = x[origin + stride * step, channel:stop]
                    else:
                        row = initial[sequence, taps - 1 + step, channel:stop]
                    factors = weight[tap, channel:stop]
                    for k in range(width):
                        sums[k] += factors[k] * row[k]
                for k in range(width):
                    s = sigmoid(sums[k])
                    sums[k] = grad[k] * s * (one + sums[k] * (one - s))
            else:
                for k in range(width):
                    sums[k] = grad[k]
            # The last tap meets the token itself, and is the first to write its gradient.
            target, row = grad_x[t, channel:stop], x[t, channel:stop]
            factors, sum_factors = weight[taps - 1, channel:stop], sum_weight[taps - 1]
            for k in range(width):
                sum_bias[k] += sums[k]
                target[k] = factors[k] * sums[k]
                sum_factors[k] += sums[k] * row[k]
            for tap in range(taps - 1):
                step = i - (taps - 1) + tap
                if step >= 0:
                    source = origin + stride * step
                    target, row = grad_x[source, channel:stop], x[source, channel:stop]
                else:
                    place = taps - 1 + step
                    target, row = grad_initial[sequence, place, channel:stop], initial[sequence, place, channel:stop]
                factors, sum_factors = weight[tap, channel:stop], sum_weight[tap]
                for k in range(width):
                    target[k] += factors[k] * sums[k]
                    sum_factors[k] += sums[k] * row[k]
        for place in range(taps - 1):
            step = length - (taps - 1) + place
            if step >= 0:
                target = grad_x[origin + stride * step, channel:stop]
            else:
                target = grad_initial[sequence, taps - 1 + step, channel:stop]
            grad = grad_final[sequence, place, channel:stop]
            for k in range(width):
                target[k] += grad[k]
    for k in range(width):
        grad_bias[part, channel + k] = sum_bias[k]
    for tap in range(taps):
        for k in range(width):
            grad_weight[part, tap, channel + k] = sum_weight[tap, k]
