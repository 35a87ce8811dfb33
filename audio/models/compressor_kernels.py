"""The compiled block of a compressor on a CPU. Imports numba: import this module on first use only.

Samples are taken one after the other, so that the output does not depend on how a signal is cut into blocks, bit for
bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ...core.ops._numba_math import FAST
from .sashimi_kernels import linear, state_space

Array = Any


@njit(**FAST)
def process(
    x: Array,
    state: Array,
    ends: Any,
    inner: Array,
    inner_bias: Array,
    matrices: Array,
    through: Array,
    outer: Array,
    outer_bias: Array,
    scale: Array,
    shift: Array,
    skip: Array,
    slopes: Array,
    y: Array,
) -> None:
    """x (batch, length, channels) to y; overwrites state (batch, layers, 2, modes, width)."""
    encoder, encoder_bias, decoder, decoder_bias = ends
    batch, length, _ = x.shape
    layers, width = skip.shape
    zero = x.dtype.type(0)
    hidden, entering = np.empty(width, x.dtype), np.empty(width, x.dtype)
    leaving, mixed = np.empty(width, x.dtype), np.empty(width, x.dtype)
    none = np.empty((0, width), x.dtype)
    for b in range(batch):
        for t in range(length):
            linear(encoder, encoder_bias, x[b, t], hidden)
            for layer in range(layers):
                linear(inner[layer], inner_bias[layer], hidden, entering)
                slope = slopes[layer, 0]
                for k in range(width):
                    entering[k] = max(entering[k], zero) + slope * min(entering[k], zero)
                state_space(matrices[layer], through[layer], 0, entering, state[b, layer], none, leaving)
                linear(outer[layer], outer_bias[layer], leaving, mixed)
                slope = slopes[layer, 1]
                scales, shifts, skips = scale[b, layer], shift[b, layer], skip[layer]
                for k in range(width):
                    value = mixed[k] * scales[k] + shifts[k]
                    hidden[k] = skips[k] * hidden[k] + max(value, zero) + slope * min(value, zero)
            linear(decoder, decoder_bias, hidden, y[b, t])
            for c in range(y.shape[2]):
                y[b, t, c] = math.tanh(y[b, t, c])
