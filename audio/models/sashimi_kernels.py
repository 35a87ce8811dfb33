"""The compiled step of a SaShiMi on a CPU. Imports numba: import this module on first use only.

One call runs the whole network for one sample of some sequences: a small interpreter of the instructions that
:class:`longscan.audio.models.sashimi_compiled.CompiledProgram` has packed. Loops run over contiguous rows, so that they
vectorise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ...core.ops._numba_math import FAST, sigmoid
from .sashimi_compiled import ADD, DOWN, FEED_FORWARD, NORM, SAVE, STATE_SPACE, UP

Array = Any


@njit(**FAST)
def linear(weight: Array, bias: Array, x: Array, y: Array) -> None:
    """y = W x + b; four rows at a time share the loads of x."""
    rows, columns = weight.shape
    blocked = rows - rows % 4
    zero = x.dtype.type(0)
    for i in range(0, blocked, 4):
        first, second, third, fourth = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        a, b, c, d = zero, zero, zero, zero
        for k in range(columns):
            value = x[k]
            a += first[k] * value
            b += second[k] * value
            c += third[k] * value
            d += fourth[k] * value
        y[i], y[i + 1], y[i + 2], y[i + 3] = a + bias[i], b + bias[i + 1], c + bias[i + 2], d + bias[i + 3]
    for i in range(blocked, rows):
        row = weight[i]
        a = zero
        for k in range(columns):
            a += row[k] * x[k]
        y[i] = a + bias[i]


@njit(**FAST)
def _norm(constants: Array, width: int, x: Array, y: Array) -> None:
    one = x.dtype.type(1)
    mean = x.dtype.type(0)
    for k in range(width):
        mean += x[k]
    mean /= x.dtype.type(width)
    variance = x.dtype.type(0)
    for k in range(width):
        variance += (x[k] - mean) * (x[k] - mean)
    variance /= x.dtype.type(width)
    scale = one / np.sqrt(variance + constants[1])
    offset = constants[0] - mean
    weight, bias = constants[2 : 2 + width], constants[2 + width : 2 + 2 * width]
    for k in range(width):
        y[k] = weight[k] * ((x[k] + offset) * scale) + bias[k]


@njit(**FAST)
def _gelu(x: Array, size: int) -> None:
    half, one, root = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(math.sqrt(0.5))
    for k in range(size):
        x[k] = half * x[k] * (one + x.dtype.type(math.erf(x[k] * root)))


@njit(**FAST)
def state_space(matrices: Array, skip: Array, rank: int, u: Array, state: Array, seen: Array, y: Array) -> None:
    """Advance the states (2, modes, channels) by one input for each channel, to one output each.

    x += (factor - 1) x + input · u - left (right · x);  y = output · x + D u

    ``seen`` (rank, channels) is scratch. The inner loops run over channels: sums over modes are then sums of rows.
    """
    _, modes, channels = matrices.shape
    for r in range(rank):
        total = seen[r]
        for h in range(channels):
            total[h] = 0
        for n in range(modes):
            right_r, right_i = matrices[8 + 4 * r, n], matrices[9 + 4 * r, n]
            real, imaginary = state[0, n], state[1, n]
            for h in range(channels):
                total[h] += right_r[h] * real[h] - right_i[h] * imaginary[h]
    for h in range(channels):
        y[h] = skip[h] * u[h]
    for n in range(modes):
        growth_r, growth_i, input_r, input_i = matrices[0, n], matrices[1, n], matrices[2, n], matrices[3, n]
        output_r, output_i = matrices[4, n], matrices[5, n]
        real, imaginary = state[0, n], state[1, n]
        if rank == 1:
            left_r, left_i, total = matrices[6, n], matrices[7, n], seen[0]
            for h in range(channels):
                a, b = real[h], imaginary[h]
                p = a + (growth_r[h] * a - growth_i[h] * b + input_r[h] * u[h] - left_r[h] * total[h])
                q = b + (growth_r[h] * b + growth_i[h] * a + input_i[h] * u[h] - left_i[h] * total[h])
                real[h], imaginary[h] = p, q
                y[h] += output_r[h] * p - output_i[h] * q
        else:
            for h in range(channels):
                a, b = real[h], imaginary[h]
                real[h] = a + (growth_r[h] * a - growth_i[h] * b + input_r[h] * u[h])
                imaginary[h] = b + (growth_r[h] * b + growth_i[h] * a + input_i[h] * u[h])
            for r in range(rank):
                left_r, left_i, total = matrices[6 + 4 * r, n], matrices[7 + 4 * r, n], seen[r]
                for h in range(channels):
                    real[h] -= left_r[h] * total[h]
                    imaginary[h] -= left_i[h] * total[h]
            for h in range(channels):
                y[h] += output_r[h] * real[h] - output_i[h] * imaginary[h]


@njit(**FAST)
def run(
    first: int,
    last: int,
    position: int,
    pool: Array,
    table: Array,
    constants: Array,
    width: int,
    inner: int,
    embedding: Array,
    head: Array,
    head_bias: Array,
    codes: Array,
    vectors: Array,
    state: Array,
    work: Array,
    out: Array,
) -> None:
    """Step sequences ``first`` to ``last``: reads codes or vectors, overwrites rows of state, writes rows of out."""
    phases = np.empty(len(pool), np.int64)
    rest = position
    for level in range(len(pool)):
        phases[level] = rest % pool[level]
        rest //= pool[level]
    d_model = embedding.shape[1]
    # Where in a row of work the current sequence, its normalised form, two hidden vectors and kept sequences lie.
    normed, hidden, other, kept = width, 2 * width, 2 * width + inner, 2 * width + 2 * inner
    for b in range(first, last):
        x = work[b]
        if len(codes) > 0:
            for k in range(d_model):
                x[k] = embedding[codes[b], k]
        else:
            for k in range(d_model):
                x[k] = vectors[b, k]
    asleep = -1
    for index in range(len(table)):
        kind, size, second, third, fourth, at, place, outputs = table[index]
        if asleep >= 0 and not (kind == UP and fourth == asleep):
            continue
        for b in range(first, last):
            x = work[b]
            if kind == SAVE:
                for k in range(second):
                    x[kept + size * width + k] = x[k]
            elif kind == ADD:
                for k in range(second):
                    x[k] += x[kept + size * width + k]
            elif kind == STATE_SPACE:
                modes, rank, rows = second, third, fourth
                planes = 6 + 4 * rank
                _norm(constants[at:], size, x, x[normed:])
                start = at + 2 + 2 * size
                stop = start + size * planes * modes
                matrices = constants[start:stop].reshape((planes, modes, size))
                skip = constants[stop : stop + size]
                states = state[b, place : place + 2 * size * modes].reshape((2, modes, size))
                y = x[hidden : hidden + size]
                seen = x[other : other + rank * size].reshape((rank, size))
                state_space(matrices, skip, rank, x[normed : normed + size], states, seen, y)
                _gelu(y, size)
                start = stop + size
                stop = start + rows * size
                z = x[other : other + rows]
                linear(constants[start:stop].reshape((rows, size)), constants[stop : stop + rows], y, z)
                if rows == size:
                    for k in range(size):
                        x[k] += z[k]
                else:
                    for k in range(size):
                        x[k] += z[k] * sigmoid(z[size + k])
            elif kind == FEED_FORWARD:
                _norm(constants[at:], size, x, x[normed:])
                start = at + 2 + 2 * size
                stop = start + size * second
                y = x[hidden : hidden + second]
                bias = constants[stop : stop + second]
                linear(constants[start:stop].reshape((second, size)), bias, x[normed : normed + size], y)
                _gelu(y, second)
                start = stop + second
                stop = start + size * second
                z = x[other : other + size]
                linear(constants[start:stop].reshape((size, second)), constants[stop : stop + size], y, z)
                for k in range(size):
                    x[k] += z[k]
            elif kind == DOWN:
                waiting = state[b, place : place + size]
                phase = phases[fourth]
                for k in range(size // third):
                    waiting[k * third + phase] = x[k]
                if phase == third - 1:
                    stop = at + size * second
                    y = x[hidden : hidden + second]
                    linear(constants[at:stop].reshape((second, size)), constants[stop : stop + second], waiting, y)
                    for k in range(second):
                        x[k] = y[k]
            elif kind == UP:
                waiting = state[b, place : place + second]
                y = x[hidden : hidden + second]
                if asleep < 0:
                    stop = at + size * second
                    bias = constants[stop : stop + second]
                    linear(constants[at:stop].reshape((second, size)), bias, x[:size], y)
                for k in range(outputs):
                    x[k] = waiting[k * third + phases[fourth]]
                if asleep < 0:
                    for k in range(second):
                        waiting[k] = y[k]
            elif kind == NORM:
                _norm(constants[at:], size, x, x[normed:])
                for k in range(size):
                    x[k] = x[normed + k]
        if kind == DOWN and phases[fourth] != third - 1:
            asleep = fourth
        elif kind == UP:
            asleep = -1
    for b in range(first, last):
        x = work[b]
        if len(head) > 0:
            linear(head, head_bias, x[:d_model], out[b])
        else:
            for k in range(d_model):
                out[b, k] = x[k]
