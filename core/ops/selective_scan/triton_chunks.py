# ruff: noqa: RUF005  (kernels know no unpacking)
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
    columns_of_two,
    read,
    rows_layout,
    rows_memory,
    sigmoid,
    slice_of,
    spread_layout,
    tile_layout,
    whole_layout,
    zeros,
)  # fmt: skip
from .._triton import LOG2_E
from .triton_inputs import fetch_rows, find_chunk, load_inputs, row_of, spread_rows, step_sizes


@triton.jit
def _prepare(
    inputs, bias, valid,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, HAS_Z: tl.constexpr, SOFTPLUS: tl.constexpr,
    GRADIENT: tl.constexpr, LAST: tl.constexpr, SPREAD: tl.constexpr, WHOLE: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):  # fmt: skip
    """dt and what B or C is multiplied by, each a tuple over tokens of (channels,), and dt as it is spread."""
    dt = step_sizes(inputs[1], bias, valid, SOFTPLUS, LAST)
    x = inputs[0].to(tl.float32)
    if GRADIENT:
        if HAS_Z:
            gate = inputs[2].to(tl.float32)
            x *= gate * sigmoid(gate, SPREAD)
    else:
        x *= dt
    dts, xs = columns_of_two(dt, x, CHANNELS, TOKENS, WHOLE, TILE_CHANNELS)
    return dts, xs, dt


@triton.jit
def _advance(
    h, dt, x, rows, constant, rate,
    TOKENS: tl.constexpr, CONSTANT: tl.constexpr, GRADIENT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    for j in tl.static_range(TOKENS):
        row = row_of(rows, constant, j, CONSTANT, TILE)
        decay = tl.exp2(dt[j][:, None] * rate)
        if GRADIENT:
            h = decay * (h + x[j][:, None] * row)
        else:
            h = tl.fma(decay, h, x[j][:, None] * row)
    return h


@triton.jit
def _summarize(
    tensors, strides, z, z_batch, memory, group, origin, sequence, part, length, dim, chunk, chunks, pad, group_size,
    STRIDES: tl.constexpr, WHICH: tl.constexpr, Z: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    CONSTANT: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr, GRADIENT: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    TILE: tl.constexpr = tile_layout(STATES, WARPS, GLUON)
    TILE_STATES: tl.constexpr = slice_of(TILE, 0)
    TILE_CHANNELS: tl.constexpr = slice_of(TILE, 1)
    SPREAD: tl.constexpr = spread_layout(STATES, TOKENS, WARPS, GLUON)
    SPREAD_TOKENS: tl.constexpr = slice_of(SPREAD, 0)
    SPREAD_CHANNELS: tl.constexpr = slice_of(SPREAD, 1)
    WHOLE: tl.constexpr = whole_layout(STATES, 2 * TOKENS, WARPS, GLUON)
    WAY: tl.constexpr = -1 if REVERSE != GRADIENT else 1
    X: tl.constexpr = STRIDES[WHICH][0]
    DELTA: tl.constexpr = STRIDES[WHICH][1]
    ROWS: tl.constexpr = STRIDES[WHICH][2]
    x, delta, A, rows, delta_bias, ends, total_dt = tensors
    x_batch, delta_batch, rows_batch, rows_group = strides
    batch, _, first, steps = find_chunk(delta, sequence, part, length, chunk, pad, False, REVERSE)
    if GRADIENT:  # from the last step of the chunk to its first
        first -= (steps - 1) * WAY
    limit = (group + 1) * group_size
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
    ROWS_LAYOUT: tl.constexpr = rows_layout(STATES, TOKENS, GLUON)
    row_token, row_state = n, n
    if GLUON:
        row_token = arange(TOKENS, slice_of(ROWS_LAYOUT, 1))[:, None]
        row_state = arange(STATES, slice_of(ROWS_LAYOUT, 0))[None, :]
    full = steps // TOKENS * TOKENS
    zero = 0 * steps
    if full > 0:
        # As in the forward pass, a batch is prepared while the one before it advances.
        inputs = load_inputs(
            x, delta, z, x, zero, steps, token, channel, limit, X, DELTA, Z, X, WAY, EVEN, GATED, False, False
        )  # fmt: skip
        inputs_next = load_inputs(
            x, delta, z, x, tl.minimum(TOKENS, full - TOKENS), steps, token, channel, limit, X, DELTA, Z, X, WAY, EVEN,
            GATED, False, False,
        )  # fmt: skip
        rows_next = fetch_rows(
            rows, zero, steps, row_token, row_state, ROWS, WAY, TOKENS, STATE, EVEN, CONSTANT, False, GLUON
        )
        dt, of_x, dt_batch = _prepare(
            inputs, bias, token < 0, TOKENS, CHANNELS, HAS_Z, SOFTPLUS, GRADIENT, False, SPREAD, WHOLE, TILE_CHANNELS
        )
        for start in range(0, full, TOKENS):
            summed += dt_batch
            batch_rows = spread_rows(memory, rows_next, CONSTANT, GLUON)
            inputs_after = load_inputs(
                x, delta, z, x, tl.minimum(start + 2 * TOKENS, full - TOKENS), steps, token, channel, limit, X, DELTA,
                Z, X, WAY, EVEN, GATED, False, False,
            )  # fmt: skip
            rows_next = fetch_rows(
                rows, tl.minimum(start + TOKENS, full - TOKENS), steps, row_token, row_state, ROWS, WAY, TOKENS, STATE,
                EVEN, CONSTANT, False, GLUON,
            )  # fmt: skip
            dt_next, of_x_next, dt_batch = _prepare(
                inputs_next, bias, token < 0, TOKENS, CHANNELS, HAS_Z, SOFTPLUS, GRADIENT, False, SPREAD, WHOLE,
                TILE_CHANNELS,
            )  # fmt: skip
            h = _advance(h, dt, of_x, batch_rows, constant, rate, TOKENS, CONSTANT, GRADIENT, TILE)
            dt, of_x, inputs_next = dt_next, of_x_next, inputs_after
    if full < steps:
        last_inputs = load_inputs(
            x, delta, z, x, full, steps, token, channel, limit, X, DELTA, Z, X, WAY, EVEN, GATED, False, True
        )  # fmt: skip
        last_rows = fetch_rows(
            rows, full, steps, row_token, row_state, ROWS, WAY, TOKENS, STATE, EVEN, CONSTANT, True, GLUON
        )
        last_dt, last_x, last_dt_batch = _prepare(
            last_inputs, bias, full + token < steps, TOKENS, CHANNELS, HAS_Z, SOFTPLUS, GRADIENT, True, SPREAD, WHOLE,
            TILE_CHANNELS,
        )  # fmt: skip
        summed += last_dt_batch
        h = _advance(
            h, last_dt, last_x, spread_rows(memory, last_rows, CONSTANT, GLUON), constant, rate, TOKENS, CONSTANT,
            GRADIENT, TILE,
        )  # fmt: skip
    row = sequence * chunks + part
    tl.store(ends + row * dim * STATE + tile, h, inside)
    tl.store(total_dt + row * dim + c, arrange(tl.sum(summed, axis=1), TILE_CHANNELS), c < limit)


def summarize(
    tensors, strides, z, z_batch, length, dim, chunk, chunks, pad, channel_blocks, group_size, group_blocks,
    STRIDES: tl.constexpr, Z: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    CONSTANT: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr, GRADIENT: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """What a chunk ends with from zero, and the sum of its steps.

    States run along the scan with x = u and rows = B; gradients of states (``GRADIENT``) against it with x the gradient
    of y and rows = C. The grid is (programs of a direction, directions).
    """
    program = tl.program_id(0)
    block, row = program % channel_blocks, program // channel_blocks
    group = block // group_blocks
    origin = group * group_size + block % group_blocks * CHANNELS
    # All chunks but the one that the scan comes to last.
    sequence, part = (row // (chunks - 1)).to(tl.int64), row % (chunks - 1)
    if GRADIENT:
        part += 1
    memory = rows_memory(TOKENS, STATES, z, GLUON)
    if tl.program_id(1) == 0:
        _summarize(
            tensors[0], strides[0], z, z_batch, memory, group, origin, sequence, part, length, dim, chunk, chunks, 0,
            group_size, STRIDES, 0, Z, STATE, STATES, CHANNELS, TOKENS, EVEN, CONSTANT, HAS_Z, HAS_BIAS, SOFTPLUS,
            REVERSE, GRADIENT, WARPS, GLUON,
        )  # fmt: skip
    elif len(STRIDES) == 2:
        _summarize(
            tensors[1], strides[1], z, z_batch, memory, group, origin, sequence, part, length, dim, chunk, chunks, pad,
            group_size, STRIDES, 1, Z, STATE, STATES, CHANNELS, TOKENS, EVEN, CONSTANT, HAS_Z, HAS_BIAS, SOFTPLUS,
            not REVERSE, GRADIENT, WARPS, GLUON,
        )  # fmt: skip


@triton.jit(do_not_specialize=["elements", "dim", "state", "chunks"])
def carry(
    tensors, elements, dim, state, chunks,
    ELEMENTS: tl.constexpr, AHEAD: tl.constexpr, HAS_INITIAL: tl.constexpr, BACKWARDS: tl.constexpr,
    DIRECTIONS: tl.constexpr,
):  # fmt: skip
    """Turn what chunks end with from zero into what enters them, in place.

    ``elements`` = dim · state; a program takes some of them, of one sequence and direction, through all chunks.
    """
    if tl.program_id(1) == 0:
        _carry(tensors[0], elements, dim, state, chunks, ELEMENTS, AHEAD, HAS_INITIAL, BACKWARDS)
    elif DIRECTIONS == 2:
        _carry(tensors[1], elements, dim, state, chunks, ELEMENTS, AHEAD, HAS_INITIAL, BACKWARDS)


@triton.jit
def _carry(
    tensors, elements, dim, state, chunks,
    ELEMENTS: tl.constexpr, AHEAD: tl.constexpr, HAS_INITIAL: tl.constexpr, BACKWARDS: tl.constexpr,
):  # fmt: skip
    A, initial, total_dt, ends = tensors
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
    for start in range(0, chunks, AHEAD):
        # Loads of several chunks at once: one after the other, each would be waited for.
        found, decays = (), ()
        for j in tl.static_range(AHEAD):
            row = _row(sequence, start + j, chunks, BACKWARDS)
            more = inside & (start + j < chunks - 1)
            found = found + (tl.load(ends + row * elements + element, more, 0.0),)
            decays = decays + (tl.exp2(tl.load(total_dt + row * dim + channel, more, 0.0) * rate),)
        for j in tl.static_range(AHEAD):
            row = _row(sequence, start + j, chunks, BACKWARDS)
            tl.store(ends + row * elements + element, h, inside & (start + j < chunks))
            h = decays[j] * h + found[j]


@triton.jit
def _row(sequence, step, chunks, BACKWARDS: tl.constexpr):
    """The row of the chunk that is step-th in the order of the scan, or of its gradients."""
    if BACKWARDS:
        return sequence * chunks + chunks - 1 - step
    else:
        return sequence * chunks + step
