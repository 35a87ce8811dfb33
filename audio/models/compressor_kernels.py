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
    gain: bool,
    floor: float,
    largest: float,
    y: Array,
) -> None:
    """x (batch, length, channels) to y; overwrites state (batch, layers, 2, modes, width).

    With ``gain``, the levels of the samples, at least that of ``floor``, are read too, and the decoder's output is the
    logarithm of a gain, within ± ``largest``.
    """
    encoder, encoder_bias, decoder, decoder_bias = ends
    batch, length, channels = x.shape
    layers, width = skip.shape
    zero = x.dtype.type(0)
    hidden, entering = np.empty(width, x.dtype), np.empty(width, x.dtype)
    leaving, mixed = np.empty(width, x.dtype), np.empty(width, x.dtype)
    none = np.empty((0, width), x.dtype)
    features = np.empty(2 * channels if gain else channels, x.dtype)
    slope_of_level = -2 / math.log(floor)
    for b in range(batch):
        for t in range(length):
            for c in range(channels):
                features[c] = x[b, t, c]
                if gain:
                    features[channels + c] = 1 + slope_of_level * math.log(max(abs(x[b, t, c]), floor))
            linear(encoder, encoder_bias, features, hidden)
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
            for c in range(channels):
                if gain:
                    y[b, t, c] = x[b, t, c] * math.exp(min(max(y[b, t, c], -largest), largest))
                else:
                    y[b, t, c] = math.tanh(y[b, t, c])
