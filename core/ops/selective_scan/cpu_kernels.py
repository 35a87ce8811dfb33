"""Compiled kernels of the selective scan for the CPU. Imports numba: import this module on first use only.

One call runs some sequences over one block of ``WIDTH`` channels. States are held as (state, WIDTH), so that every
operation of the recurrence runs across channels and the loops below become straight vector code; a block that is not
full is padded with zeros, which stay zero. Tokens of all sequences lie in one axis; ``offsets`` delimits them. With
``reverse``, step i of a sequence is the token i places from its end. A is given transposed and scaled (see ``power``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .._numba_math import FAST, power, sigmoid

#: Channels in a block: one AVX-512 register of float32. Wider blocks measured slower: they need checks for overlap.
WIDTH = 16

#: Steps between two stored states: the backward pass recomputes that many, and they fit in the first-level cache.
CHUNK = 32

Array = Any


@njit(**FAST)
def _entry(value: float, table: Array, n: int, c: int) -> float:
    """B or C of one channel: ``value`` where it varies in time, from the ``table`` (state, WIDTH) where it is constant."""
    if table is None:
        return value
    return table[n, c]


@njit(**FAST)
def _block(table: Array, channel: int, width: int) -> Array:
    """A copy of the block's columns of (state, dim), padded with zeros."""
    block = np.zeros((table.shape[0], WIDTH), table.dtype)
    block[:, :width] = table[:, channel : channel + width]
    return block


@njit(**FAST)
def _load(row: Array, source: Array, t: int, channel: int, width: int) -> None:
    """Copy one token's channels; the full block has its own loop, of a length known to the compiler."""
    if width == WIDTH:
        for k in range(WIDTH):
            row[k] = source[t, channel + k]
    else:
        for k in range(width):
            row[k] = source[t, channel + k]


@njit(**FAST)
def _store(target: Array, row: Array, t: int, channel: int, width: int) -> None:
    if width == WIDTH:
        for k in range(WIDTH):
            target[t, channel + k] = row[k]
    else:
        for k in range(width):
            target[t, channel + k] = row[k]


@njit(**FAST)
def forward(
    first: int,
    last: int,
    channel: int,
    width: int,
    group: int,
    offsets: Array,
    chunk_offsets: Array,
    reverse: bool,
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    B_constant: Array,
    C_constant: Array,
    skip: Array,
    z: Array,
    has_gate: bool,
    initial: Array,
    y: Array,
    final: Array,
    entries: Array,
    save_entries: bool,
) -> None:
    """Sequences ``first`` to ``last``: writes y (tokens, dim), final (sequences, state, dim), entries (chunks, ...)."""
    states = A.shape[0]
    one = type(u[0, 0])(1)
    decay = _block(A, channel, width)
    B_table = None if B_constant is None else _block(B_constant, channel, width)
    C_table = None if C_constant is None else _block(C_constant, channel, width)
    h = np.zeros((states, WIDTH), u.dtype)
    row = np.zeros((5, WIDTH), u.dtype)
    u_t, dt_t, x_t, y_t, z_t = row[0], row[1], row[2], row[3], row[4]
    skip_k = np.zeros(WIDTH, u.dtype)
    skip_k[:width] = skip[channel : channel + width]
    b = c = one
    for sequence in range(first, last):
        begin, end = offsets[sequence], offsets[sequence + 1]
        for n in range(states):
            for k in range(width):
                h[n, k] = initial[sequence, n, channel + k]
        for i in range(end - begin):
            t = end - 1 - i if reverse else begin + i
            if save_entries and i % CHUNK == 0:
                chunk = chunk_offsets[sequence] + i // CHUNK
                for n in range(states):
                    for k in range(width):
                        entries[chunk, n, channel + k] = h[n, k]
            _load(u_t, u, t, channel, width)
            _load(dt_t, dt, t, channel, width)
            for k in range(WIDTH):
                x_t[k] = dt_t[k] * u_t[k]
                y_t[k] = skip_k[k] * u_t[k]
            for n in range(states):
                if B_table is None:
                    b = B[t, group, n]
                if C_table is None:
                    c = C[t, group, n]
                for k in range(WIDTH):
                    value = power(dt_t[k] * decay[n, k]) * h[n, k] + _entry(b, B_table, n, k) * x_t[k]
                    h[n, k] = value
                    y_t[k] += _entry(c, C_table, n, k) * value
            if has_gate:
                _load(z_t, z, t, channel, width)
                for k in range(WIDTH):
                    y_t[k] *= z_t[k] * sigmoid(z_t[k])
            _store(y, y_t, t, channel, width)
        for n in range(states):
            for k in range(width):
                final[sequence, n, channel + k] = h[n, k]


@njit(**FAST)
def backward(
    first: int,
    last: int,
    part: int,
    slot: int,
    channel: int,
    width: int,
    group: int,
    offsets: Array,
    chunk_offsets: Array,
    reverse: bool,
    unscale: float,
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    B_constant: Array,
    C_constant: Array,
    skip: Array,
    z: Array,
    has_gate: bool,
    entries: Array,
    grad_y: Array,
    grad_final: Array,
    grad_u: Array,
    grad_dt: Array,
    grad_z: Array,
    grad_A: Array,
    grad_B: Array,
    grad_C: Array,
    grad_skip: Array,
    grad_initial: Array,
) -> None:
    """The adjoint of :func:`forward`, chunk by chunk from the last.

    With g the adjoint of the state, a the decay and r = a h_before: g = carry + C dy, carry = a g,
    dA = sum dt g r, ddt = sum_n g (A r + B u), du = dt sum_n g B, dB = g dt u, dC = dy h.
    ``part`` and ``slot`` are this call's rows in the arrays that are summed afterwards: grad_A (parts, state, dim),
    grad_skip (parts, dim), grad_B and grad_C (slots, tokens, groups, state), or (parts, state, dim) where constant.
    """
    states = A.shape[0]
    dtype = u.dtype
    zero = type(u[0, 0])(0)
    one = type(u[0, 0])(1)
    decay = _block(A, channel, width)
    B_table = None if B_constant is None else _block(B_constant, channel, width)
    C_table = None if C_constant is None else _block(C_constant, channel, width)
    h, carry = np.zeros((states, WIDTH), dtype), np.zeros((states, WIDTH), dtype)
    sum_A, sum_B, sum_C = (np.zeros((states, WIDTH), dtype), np.zeros((states, WIDTH), dtype), np.zeros((states, WIDTH), dtype))
    sum_skip = np.zeros(WIDTH, dtype)
    decays, befores = np.empty((CHUNK, states, WIDTH), dtype), np.empty((CHUNK, states, WIDTH), dtype)
    ungated = np.zeros((CHUNK, WIDTH), dtype)
    dt_t, x_t, y_t, dy_t = np.zeros(WIDTH, dtype), np.zeros(WIDTH, dtype), np.zeros(WIDTH, dtype), np.zeros(WIDTH, dtype)
    sum_input, sum_decay = np.zeros(WIDTH, dtype), np.zeros(WIDTH, dtype)
    b = c = one
    for sequence in range(first, last):
        begin, end = offsets[sequence], offsets[sequence + 1]
        for n in range(states):
            for k in range(width):
                carry[n, k] = grad_final[sequence, n, channel + k]
        for chunk in range((end - begin + CHUNK - 1) // CHUNK - 1, -1, -1):
            start = chunk * CHUNK
            steps = min(CHUNK, end - begin - start)
            for n in range(states):
                for k in range(width):
                    h[n, k] = entries[chunk_offsets[sequence] + chunk, n, channel + k]

            for i in range(steps):
                t = end - 1 - start - i if reverse else begin + start + i
                for k in range(width):
                    dt_t[k] = dt[t, channel + k]
                    x_t[k] = dt_t[k] * u[t, channel + k]
                    y_t[k] = skip[channel + k] * u[t, channel + k]
                for n in range(states):
                    if B_table is None:
                        b = B[t, group, n]
                    if C_table is None:
                        c = C[t, group, n]
                    for k in range(WIDTH):
                        a = power(dt_t[k] * decay[n, k])
                        before = h[n, k]
                        value = a * before + _entry(b, B_table, n, k) * x_t[k]
                        decays[i, n, k] = a
                        befores[i, n, k] = before
                        h[n, k] = value
                        y_t[k] += _entry(c, C_table, n, k) * value
                for k in range(WIDTH):
                    ungated[i, k] = y_t[k]

            for i in range(steps - 1, -1, -1):
                t = end - 1 - start - i if reverse else begin + start + i
                if has_gate:
                    for k in range(width):
                        gate = z[t, channel + k]
                        s = sigmoid(gate)
                        dy_t[k] = grad_y[t, channel + k] * gate * s
                        grad_z[t, channel + k] = grad_y[t, channel + k] * ungated[i, k] * s * (one + gate * (one - s))
                else:
                    for k in range(width):
                        dy_t[k] = grad_y[t, channel + k]
                for k in range(width):
                    dt_t[k] = dt[t, channel + k]
                    x_t[k] = dt_t[k] * u[t, channel + k]
                for k in range(WIDTH):
                    sum_input[k] = zero
                    sum_decay[k] = zero
                for n in range(states):
                    if B_table is None:
                        b = B[t, group, n]
                    if C_table is None:
                        c = C[t, group, n]
                    total_B = zero
                    total_C = zero
                    for k in range(WIDTH):
                        a = decays[i, n, k]
                        g = carry[n, k] + _entry(c, C_table, n, k) * dy_t[k]
                        carry[n, k] = a * g
                        decayed = a * befores[i, n, k]
                        b_k = _entry(b, B_table, n, k)
                        value = decayed + b_k * x_t[k]
                        weighted = g * decayed
                        sum_A[n, k] += dt_t[k] * weighted
                        sum_decay[k] += decay[n, k] * weighted
                        sum_input[k] += b_k * g
                        if B_table is None:
                            total_B += g * x_t[k]
                        else:
                            sum_B[n, k] += g * x_t[k]
                        if C_table is None:
                            total_C += dy_t[k] * value
                        else:
                            sum_C[n, k] += dy_t[k] * value
                    if B_table is None:
                        grad_B[slot, t, group, n] = total_B
                    if C_table is None:
                        grad_C[slot, t, group, n] = total_C
                for k in range(width):
                    grad_u[t, channel + k] = dt_t[k] * sum_input[k] + skip[channel + k] * dy_t[k]
                    grad_dt[t, channel + k] = unscale * sum_decay[k] + u[t, channel + k] * sum_input[k]
                    sum_skip[k] += dy_t[k] * u[t, channel + k]
        for n in range(states):
            for k in range(width):
                grad_initial[sequence, n, channel + k] = carry[n, k]
    for k in range(width):
        grad_skip[part, channel + k] = sum_skip[k]
        for n in range(states):
            grad_A[part, n, channel + k] = sum_A[n, k]
            if B_table is not None:
                grad_B[part, n, channel + k] = sum_B[n, k]
            if C_table is not None:
                grad_C[part, n, channel + k] = sum_C[n, k]
