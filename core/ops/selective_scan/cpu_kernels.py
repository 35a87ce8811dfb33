"""Compiled kernels of the selective scan for the CPU. Imports numba: import this module on first use only.

One call runs some sequences over one block of ``WIDTH`` channels. States are held as (state, WIDTH), so that every
operation of the recurrence runs across channels and the loops below become straight vector code; a block that is not
full is padded with zeros, which stay zero. Tokens of all sequences lie in one axis; ``offsets`` delimits them. With
``reverse``, step i of a sequence is the token i places from its end. A is given transposed and scaled (see ``power``).

Two habits keep the compiler at it. What is done once per token is done for a whole chunk at a time, because passing
arrays to a function costs numba some reference counting. And the quantities of a token lie in the rows of one array
(see U, DT, ...), those of a state in another (DECAY, H, ...): the compiler has to prove that what it reads and what it
writes do not overlap, and gives up on a loop over many arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .._numba_math import FAST, power, sigmoid

#: Channels in a block: one AVX-512 register of float32. Wider blocks measured slower.
WIDTH = 16

#: Steps between two stored states: the backward pass recomputes that many from the stored one.
CHUNK = 64

# Rows of the array of a chunk's tokens, (CHUNK, 6, WIDTH); X is dt * u, Y the output before the gate.
U, DT, X, Y, Z, DY = range(6)
# Rows of the array of the block's states, (state, 8, WIDTH); B_ROW and C_ROW where B and C are constant in time.
DECAY, B_ROW, C_ROW, H, CARRY, SUM_A, SUM_B, SUM_C = range(8)
# Rows of what the backward pass keeps of every step and state, (CHUNK, state, 2, WIDTH).
FACTOR, BEFORE = range(2)
# Rows of the sums over the states of one token, (2, WIDTH).
INPUT, RATE = range(2)

Array = Any


@njit(**FAST)
def _load_block(states: Array, row: int, source: Array, channel: int, width: int) -> None:
    """One row of the states from the block's columns of ``source`` (state, dim)."""
    for n in range(states.shape[0]):
        into, values = states[n, row], source[n, channel : channel + width]
        for k in range(width):
            into[k] = values[k]


@njit(**FAST)
def _store_block(target: Array, states: Array, row: int, channel: int, width: int) -> None:
    for n in range(states.shape[0]):
        into, values = target[n, channel : channel + width], states[n, row]
        for k in range(width):
            into[k] = values[k]


@njit(**FAST)
def _load_tokens(
    tokens: Array, row: int, source: Array, t: int, stride: int, steps: int, channel: int, width: int
) -> None:
    """One row of the tokens from ``steps`` tokens of ``source`` (tokens, dim), from t on in steps of ``stride``."""
    for i in range(steps):
        into, values = tokens[i, row], source[t, channel : channel + width]
        if width == WIDTH:  # a length that the compiler knows
            for k in range(WIDTH):
                into[k] = values[k]
        else:
            for k in range(width):
                into[k] = values[k]
        t += stride


@njit(**FAST)
def _store_tokens(
    target: Array, tokens: Array, row: int, t: int, stride: int, steps: int, channel: int, width: int
) -> None:
    for i in range(steps):
        into, values = target[t, channel : channel + width], tokens[i, row]
        if width == WIDTH:
            for k in range(WIDTH):
                into[k] = values[k]
        else:
            for k in range(width):
                into[k] = values[k]
        t += stride


@njit(**FAST)
def _start_tokens(tokens: Array, steps: int, skip: Array, channel: int, width: int) -> None:
    """X = dt u and Y = D u."""
    for i in range(steps):
        for k in range(WIDTH):
            tokens[i, X, k] = tokens[i, DT, k] * tokens[i, U, k]
        for k in range(width):
            tokens[i, Y, k] = skip[channel + k] * tokens[i, U, k]


@njit(**FAST)
def _gate(tokens: Array, steps: int) -> None:
    """Y <- Y silu(Z)."""
    for i in range(steps):
        for k in range(WIDTH):
            tokens[i, Y, k] *= tokens[i, Z, k] * sigmoid(tokens[i, Z, k])


@njit(**FAST)
def _gate_backward(tokens: Array, steps: int) -> None:
    """With DY the gradient of Y silu(Z): Z <- the gradient of Z, DY <- the gradient of Y."""
    one = type(tokens[0, 0, 0])(1)
    for i in range(steps):
        for k in range(WIDTH):
            z = tokens[i, Z, k]
            s = sigmoid(z)
            tokens[i, Z, k] = tokens[i, DY, k] * tokens[i, Y, k] * s * (one + z * (one - s))
            tokens[i, DY, k] *= z * s


@njit(**FAST)
def _entry(value: float, constant: Array, states: Array, n: int, row: int, k: int) -> float:
    """B or C of a channel: ``value`` where it varies in time (``constant`` is None, a type), else its row."""
    if constant is None:
        return value
    return states[n, row, k]


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
    stride = -1 if reverse else 1
    states = np.zeros((A.shape[0], 8, WIDTH), u.dtype)
    tokens = np.zeros((CHUNK, 6, WIDTH), u.dtype)
    _load_block(states, DECAY, A, channel, width)
    if B_constant is not None:
        _load_block(states, B_ROW, B_constant, channel, width)
    if C_constant is not None:
        _load_block(states, C_ROW, C_constant, channel, width)
    b = c = type(u[0, 0])(0)
    for sequence in range(first, last):
        length = offsets[sequence + 1] - offsets[sequence]
        origin = offsets[sequence + 1] - 1 if reverse else offsets[sequence]
        _load_block(states, H, initial[sequence], channel, width)
        for chunk in range((length + CHUNK - 1) // CHUNK):
            start = origin + stride * chunk * CHUNK
            steps = min(CHUNK, length - chunk * CHUNK)
            if save_entries:
                _store_block(entries[chunk_offsets[sequence] + chunk], states, H, channel, width)
            _load_tokens(tokens, U, u, start, stride, steps, channel, width)
            _load_tokens(tokens, DT, dt, start, stride, steps, channel, width)
            _start_tokens(tokens, steps, skip, channel, width)
            for i in range(steps):
                t = start + stride * i
                for n in range(A.shape[0]):
                    if B_constant is None:
                        b = B[t, group, n]
                    if C_constant is None:
                        c = C[t, group, n]
                    for k in range(WIDTH):
                        factor = power(tokens[i, DT, k] * states[n, DECAY, k])
                        h = factor * states[n, H, k] + _entry(b, B_constant, states, n, B_ROW, k) * tokens[i, X, k]
                        states[n, H, k] = h
                        tokens[i, Y, k] += _entry(c, C_constant, states, n, C_ROW, k) * h
            if has_gate:
                _load_tokens(tokens, Z, z, start, stride, steps, channel, width)
                _gate(tokens, steps)
            _store_tokens(y, tokens, Y, start, stride, steps, channel, width)
        _store_block(final[sequence], states, H, channel, width)


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
    grad_B_constant: Array,
    grad_C_constant: Array,
    grad_skip: Array,
    grad_initial: Array,
) -> None:
    """The adjoint of :func:`forward`, chunk by chunk from the last.

    With g the adjoint of the state, a the decay and r = a h_before: g = carry + C dy, carry = a g,
    dA = sum dt g r, ddt = sum_n g (A r + B u), du = dt sum_n g B, dB = g dt u, dC = dy h.
    ``part`` and ``slot`` are this call's rows in the arrays that are summed afterwards: grad_A, grad_B_constant and
    grad_C_constant (parts, state, dim), grad_skip (parts, dim), grad_B and grad_C (slots, tokens, groups, state).
    """
    zero = type(u[0, 0])(0)
    stride = -1 if reverse else 1
    states = np.zeros((A.shape[0], 8, WIDTH), u.dtype)
    tokens = np.zeros((CHUNK, 6, WIDTH), u.dtype)
    kept = np.empty((CHUNK, A.shape[0], 2, WIDTH), u.dtype)
    sums = np.zeros((2, WIDTH), u.dtype)
    sum_skip = np.zeros(WIDTH, u.dtype)
    _load_block(states, DECAY, A, channel, width)
    if B_constant is not None:
        _load_block(states, B_ROW, B_constant, channel, width)
    if C_constant is not None:
        _load_block(states, C_ROW, C_constant, channel, width)
    b = c = zero
    for sequence in range(first, last):
        length = offsets[sequence + 1] - offsets[sequence]
        origin = offsets[sequence + 1] - 1 if reverse else offsets[sequence]
        _load_block(states, CARRY, grad_final[sequence], channel, width)
        for chunk in range((length + CHUNK - 1) // CHUNK - 1, -1, -1):
            start = origin + stride * chunk * CHUNK
            steps = min(CHUNK, length - chunk * CHUNK)
            _load_block(states, H, entries[chunk_offsets[sequence] + chunk], channel, width)
            _load_tokens(tokens, U, u, start, stride, steps, channel, width)
            _load_tokens(tokens, DT, dt, start, stride, steps, channel, width)
            _load_tokens(tokens, DY, grad_y, start, stride, steps, channel, width)
            _start_tokens(tokens, steps, skip, channel, width)
            for i in range(steps):
                t = start + stride * i
                for n in range(A.shape[0]):
                    if B_constant is None:
                        b = B[t, group, n]
                    if C_constant is None:
                        c = C[t, group, n]
                    for k in range(WIDTH):
                        factor = power(tokens[i, DT, k] * states[n, DECAY, k])
                        before = states[n, H, k]
                        h = factor * before + _entry(b, B_constant, states, n, B_ROW, k) * tokens[i, X, k]
                        kept[i, n, FACTOR, k] = factor
                        kept[i, n, BEFORE, k] = before
                        states[n, H, k] = h
                        tokens[i, Y, k] += _entry(c, C_constant, states, n, C_ROW, k) * h
            if has_gate:
                _load_tokens(tokens, Z, z, start, stride, steps, channel, width)
                _gate_backward(tokens, steps)
                _store_tokens(grad_z, tokens, Z, start, stride, steps, channel, width)

            for i in range(steps - 1, -1, -1):
                t = start + stride * i
                for k in range(WIDTH):
                    sums[INPUT, k] = zero
                    sums[RATE, k] = zero
                for n in range(A.shape[0]):
                    if B_constant is None:
                        b = B[t, group, n]
                    if C_constant is None:
                        c = C[t, group, n]
                    total_B = zero
                    total_C = zero
                    for k in range(WIDTH):
                        b_k = _entry(b, B_constant, states, n, B_ROW, k)
                        c_k = _entry(c, C_constant, states, n, C_ROW, k)
                        factor = kept[i, n, FACTOR, k]
                        decayed = factor * kept[i, n, BEFORE, k]
                        g = states[n, CARRY, k] + c_k * tokens[i, DY, k]
                        h_dy = (decayed + b_k * tokens[i, X, k]) * tokens[i, DY, k]
                        g_decayed = g * decayed
                        g_x = g * tokens[i, X, k]
                        states[n, CARRY, k] = factor * g
                        states[n, SUM_A, k] += tokens[i, DT, k] * g_decayed
                        sums[RATE, k] += states[n, DECAY, k] * g_decayed
                        sums[INPUT, k] += b_k * g
                        if B_constant is None:
                            total_B += g_x
                        else:
                            states[n, SUM_B, k] += g_x
                        if C_constant is None:
                            total_C += h_dy
                        else:
                            states[n, SUM_C, k] += h_dy
                    if B_constant is None:
                        grad_B[slot, t, group, n] = total_B
                    if C_constant is None:
                        grad_C[slot, t, group, n] = total_C
                for k in range(WIDTH):
                    # X and Y are no longer needed: they take the gradients of dt and of u without D dy.
                    tokens[i, X, k] = unscale * sums[RATE, k] + tokens[i, U, k] * sums[INPUT, k]
                    tokens[i, Y, k] = tokens[i, DT, k] * sums[INPUT, k]
            for i in range(steps):
                for k in range(width):
                    sum_skip[k] += tokens[i, DY, k] * tokens[i, U, k]
                    tokens[i, Y, k] += skip[channel + k] * tokens[i, DY, k]
            _store_tokens(grad_dt, tokens, X, start, stride, steps, channel, width)
            _store_tokens(grad_u, tokens, Y, start, stride, steps, channel, width)
        _store_block(grad_initial[sequence], states, CARRY, channel, width)
    for k in range(width):
        grad_skip[part, channel + k] = sum_skip[k]
    _store_block(grad_A[part], states, SUM_A, channel, width)
    if B_constant is not None:
        _store_block(grad_B_constant[part], states, SUM_B, channel, width)
    if C_constant is not None:
        _store_block(grad_C_constant[part], states, SUM_C, channel, width)
