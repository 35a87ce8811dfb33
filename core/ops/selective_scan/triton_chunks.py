# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""How long sequences are cut: what enters every chunk, from the left for states, from the right for their gradients.

A kernel runs through all chunks at once from zero and keeps only what they end with; another carries that through the
chunks, in which a state decays by exp(A · sum of the steps).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import (
    arange,
    arrange,
    columns,
    read,
    sigmoid,
    slice_of,
    spread_layout,
    tile_layout,
    whole_layout,
    zeros,
)  # fmt: skip
from .._triton import LOG2_E
from .triton_forward import as_tile, find_chunk, load_inputs, load_rows, step_sizes


@triton.jit
def _batch(
    h, summed, inputs, rows, start, steps, token, rate, bias,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, CONSTANT: tl.constexpr, HAS_Z: tl.constexpr,
    SOFTPLUS: tl.constexpr, GRADIENT: tl.constexpr, LAST: tl.constexpr, SPREAD: tl.constexpr, WHOLE: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):  # fmt: skip
    dt_batch = step_sizes(inputs[1], bias, start + token < steps, SOFTPLUS, LAST)
    x_batch = inputs[0].to(tl.float32)
    if GRADIENT:
        if HAS_Z:
            gate = inputs[2].to(tl.float32)
            x_batch *= gate * sigmoid(gate, SPREAD)
    else:
        x_batch *= dt_batch
    dt = columns(arrange(dt_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
    x = columns(arrange(x_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
    for j in tl.static_range(TOKENS):
        row = as_tile(rows[j], CONSTANT)
        decay = tl.exp2(dt[j][:, None] * rate)
        if GRADIENT:
            h = decay * (h + x[j][:, None] * row)
        else:
            h = tl.fma(decay, h, x[j][:, None] * row)
    return h, summed + dt_batch


def summarize(
    x, delta, A, rows, z, delta_bias, cu_seqlens, ends, total_dt,
    length, dim, chunk, chunks, part_offset, channel_blocks, group_size, group_blocks,
    x_batch, delta_batch, z_batch, rows_batch, rows_group,
    X: tl.constexpr, DELTA: tl.constexpr, Z: tl.constexpr, ROWS: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    CONSTANT: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr, GRADIENT: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """What a chunk ends with from zero, and the sum of its steps.

    States run along the scan with x = u and rows = B; gradients of states (``GRADIENT``) against it with x the gradient
    of y and rows = C.
    """
    TILE: tl.constexpr = tile_layout(STATES, WARPS, GLUON)
    TILE_STATES: tl.constexpr = slice_of(TILE, 0)
    TILE_CHANNELS: tl.constexpr = slice_of(TILE, 1)
    SPREAD: tl.constexpr = spread_layout(STATES, TOKENS, WARPS, GLUON)
    SPREAD_TOKENS: tl.constexpr = slice_of(SPREAD, 0)
    SPREAD_CHANNELS: tl.constexpr = slice_of(SPREAD, 1)
    WHOLE: tl.constexpr = whole_layout(STATES, TOKENS, WARPS, GLUON)
    BACKWARDS: tl.constexpr = REVERSE != GRADIENT
    _, group, origin, limit, sequence, part, batch, _, first, steps = find_chunk(
        delta, length, chunk, chunks, part_offset, group_size, group_blocks, channel_blocks, CHANNELS, False, REVERSE
    )
    WAY: tl.constexpr = -1 if BACKWARDS else 1
    if GRADIENT:  # from the last step of the chunk to its first
        if REVERSE:
            first -= steps - 1
        else:
            first += steps - 1
    n = arange(STATES, TILE_STATES)
    c = origin + arange(CHANNELS, TILE_CHANNELS)
    tile = c[:, None] * STATE + n[None, :]
    inside = (c < limit)[:, None] & (n < STATE)[None, :]
    rate = read(A, tile, inside, not EVEN).to(tl.float32) * LOG2_E
    token = arange(TOKENS, SPREAD_TOKENS)[None, :]
    channel = origin + arange(CHANNELS, SPREAD_CHANNELS)
    bias = 0.0
    if HAS_BIAS:
        bias = read(delta_bias, channel, channel < limit, not EVEN).to(tl.float32)[:, None]
    channel = channel[:, None]
    constant = rate
    if CONSTANT:
        constant = read(rows, tile, inside, not EVEN)
    rows += batch * rows_batch + group * rows_group + first * ROWS
    x += batch * x_batch + first * X
    delta += batch * delta_batch + first * DELTA
    z += batch * z_batch + first * Z
    h = zeros(CHANNELS, STATES, TILE)
    summed = zeros(CHANNELS, TOKENS, SPREAD)
    GATED: tl.constexpr = HAS_Z and GRADIENT
    pairs = steps // (2 * TOKENS) * (2 * TOKENS)
    if pairs > 0:
        zero = 0 * steps
        even = load_inputs(x, delta, z, zero, steps, token, channel, limit, X, DELTA, Z, WAY, EVEN, GATED, False)
        rows_even = load_rows(rows, constant, n, zero, steps, ROWS, WAY, TOKENS, STATE, EVEN, CONSTANT, False)
        for start in range(0, pairs, 2 * TOKENS):
            middle, next = start + TOKENS, tl.minimum(start + 2 * TOKENS, pairs - TOKENS)
            odd = load_inputs(x, delta, z, middle, steps, token, channel, limit, X, DELTA, Z, WAY, EVEN, GATED, False)
            rows_odd = load_rows(rows, constant, n, middle, steps, ROWS, WAY, TOKENS, STATE, EVEN, CONSTANT, False)
            h, summed = _batch(
                h, summed, even, rows_even, start, steps, token, rate, bias, TOKENS, CHANNELS, CONSTANT, HAS_Z,
                SOFTPLUS, GRADIENT, False, SPREAD, WHOLE, TILE_CHANNELS,
            )  # fmt: skip
            even = load_inputs(x, delta, z, next, steps, token, channel, limit, X, DELTA, Z, WAY, EVEN, GATED, False)
            rows_even = load_rows(rows, constant, n, next, steps, ROWS, WAY, TOKENS, STATE, EVEN, CONSTANT, False)
            h, summed = _batch(
                h, summed, odd, rows_odd, middle, steps, token, rate, bias, TOKENS, CHANNELS, CONSTANT, HAS_Z,
                SOFTPLUS, GRADIENT, False, SPREAD, WHOLE, TILE_CHANNELS,
            )  # fmt: skip
    for start in range(pairs, steps, TOKENS):
        last = load_inputs(x, delta, z, start, steps, token, channel, limit, X, DELTA, Z, WAY, EVEN, GATED, True)
        rows_last = load_rows(rows, constant, n, start, steps, ROWS, WAY, TOKENS, STATE, EVEN, CONSTANT, True)
        h, summed = _batch(
            h, summed, last, rows_last, start, steps, token, rate, bias, TOKENS, CHANNELS, CONSTANT, HAS_Z,
            SOFTPLUS, GRADIENT, True, SPREAD, WHOLE, TILE_CHANNELS,
        )  # fmt: skip
    row = sequence * (chunks + 1) + part
    tl.store(ends + row * dim * STATE + tile, h, inside)
    tl.store(total_dt + row * dim + c, arrange(tl.sum(summed, axis=1), TILE_CHANNELS), c < limit)


@triton.jit
def carry(
    A, initial, total_dt, ends, elements, dim, state, chunks,
    ELEMENTS: tl.constexpr, HAS_INITIAL: tl.constexpr, BACKWARDS: tl.constexpr,
):  # fmt: skip
    """Turn what chunks end with from zero into what enters them, in place.

    ``elements`` = dim · state; a program takes some of them, of one sequence, through all chunks.
    """
    blocks = tl.cdiv(elements, ELEMENTS)
    program = tl.program_id(0)
    sequence = (program // blocks).to(tl.int64)
    element = (program % blocks) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = element < elements
    channel = element // state
    rate = tl.load(A + element, inside, 0.0).to(tl.float32) * LOG2_E
    h = tl.zeros((ELEMENTS,), tl.float32)
    if HAS_INITIAL:
        h = tl.load(initial + sequence * elements + element, inside, 0.0).to(tl.float32)
    for step in range(chunks):
        part = step
        if BACKWARDS:
            part = chunks - 1 - step
        row = sequence * chunks + part
        more = inside & (step < chunks - 1)
        end = tl.load(ends + row * elements + element, more, 0.0)
        dt = tl.load(total_dt + row * dim + channel, more, 0.0)
        tl.store(ends + row * elements + element, h, inside)
        h = tl.exp2(dt * rate) * h + end
