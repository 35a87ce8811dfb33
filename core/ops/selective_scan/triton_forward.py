# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The forward pass of the selective scan as a kernel.

A program is a warp. It walks along one sequence, or one chunk of it, with the states of a block of channels in
registers, and takes batches of tokens: the elementwise part (step sizes, gates) is spread over the lanes, every
(channel, token) once; its results are then handed to all four lanes of a channel, which advance a quarter of the states
each. B and C, which all channels need, are converted once and handed on through shared memory: neither registers nor
instructions would suffice for every lane to load them. While one batch is computed, the inputs of the next are on
their way.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import (
    arange,
    arrange,
    columns,
    own_sum,
    read,
    rows_layout,
    rows_memory,
    sigmoid,
    slice_of,
    spread_layout,
    sum_lanes,
    tile_layout,
    whole_layout,
    zeros,
)  # fmt: skip
from .._triton import LOG2_E
from .triton_inputs import fetch_rows, find_chunk, first_segment, load_inputs, row_of, spread_rows, step_sizes


@triton.jit
def _advance(
    h, inputs, B_rows, C_rows, B_tile, C_tile, y, start, steps, token, channel, limit, rate, bias, skip,
    Y: tl.constexpr, WAY: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr, ADD: tl.constexpr,
    SOFTPLUS: tl.constexpr, LAST: tl.constexpr, STATES: tl.constexpr, SPREAD: tl.constexpr, WHOLE: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """The states after a batch of tokens; stores its y."""
    TILE_CHANNELS: tl.constexpr = slice_of(TILE, 1)
    valid = start + token < steps
    u_batch = inputs[0].to(tl.float32)
    dt_batch = step_sizes(inputs[1], bias, valid, SOFTPLUS, LAST)
    dt = columns(arrange(dt_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
    dt_u = columns(arrange(dt_batch * u_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
    sums = ()
    for j in tl.static_range(TOKENS):
        B_t, C_t = row_of(B_rows, B_tile, j, B_CONSTANT, TILE), row_of(C_rows, C_tile, j, C_CONSTANT, TILE)
        h = tl.fma(tl.exp2(dt[j][:, None] * rate), h, dt_u[j][:, None] * B_t)
        sums = sums + (own_sum(h * C_t, CHANNELS, STATES),)
    out = sum_lanes(sums, 0, TOKENS, CHANNELS, SPREAD)
    if HAS_D:
        out += u_batch * skip
    if ADD:
        out += inputs[3].to(tl.float32)
    if HAS_Z:
        gate = inputs[2].to(tl.float32)
        out *= gate * sigmoid(gate, SPREAD)
    place = (y + tl.cast(start, tl.int64) * (WAY * Y)) + (WAY * token * Y + channel)
    if EVEN and not LAST:
        tl.store(place, out.to(y.dtype.element_ty))
    else:
        tl.store(place, out.to(y.dtype.element_ty), valid & (channel < limit))
    return h


@triton.jit
def _walk(
    tensors, z, y, cu_seqlens, memory, group, origin, sequence, part, slot, length, dim, chunk, chunks,
    pad, group_size, segments, strides, z_batch,
    STRIDES: tl.constexpr, WHICH: tl.constexpr, Z: tl.constexpr, Y: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr, SOFTPLUS: tl.constexpr, PACKED: tl.constexpr,
    REVERSE: tl.constexpr, SAVE: tl.constexpr, SEGMENT: tl.constexpr, ADD: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """Scan one chunk in one direction; with ``ADD`` y already holds the other direction."""
    TILE: tl.constexpr = tile_layout(STATES, WARPS, GLUON)
    TILE_STATES: tl.constexpr = slice_of(TILE, 0)
    TILE_CHANNELS: tl.constexpr = slice_of(TILE, 1)
    SPREAD: tl.constexpr = spread_layout(STATES, TOKENS, WARPS, GLUON)
    SPREAD_TOKENS: tl.constexpr = slice_of(SPREAD, 0)
    SPREAD_CHANNELS: tl.constexpr = slice_of(SPREAD, 1)
    WHOLE: tl.constexpr = whole_layout(STATES, TOKENS, WARPS, GLUON)
    WAY: tl.constexpr = -1 if REVERSE else 1
    U: tl.constexpr = STRIDES[WHICH][0]
    DELTA: tl.constexpr = STRIDES[WHICH][1]
    B_TOKEN: tl.constexpr = STRIDES[WHICH][2]
    C_TOKEN: tl.constexpr = STRIDES[WHICH][3]
    u, delta, A, B, C, D, delta_bias, entering, leaving, entries = tensors
    u_batch, delta_batch, B_batch, B_group, C_batch, C_group = strides
    batch, begin, first, steps = find_chunk(cu_seqlens, sequence, part, length, chunk, pad, PACKED, REVERSE)
    limit = (group + 1) * group_size
    n = arange(STATES, TILE_STATES)
    c = (origin + arange(CHANNELS, TILE_CHANNELS))[:, None]
    tile = c * STATE + n[None, :]
    inside = (c < limit) & (n < STATE)[None, :]
    rate = read(A, tile, inside, not EVEN).to(tl.float32) * LOG2_E
    h = zeros(CHANNELS, STATES, TILE)
    if HAS_ENTERING:
        h = read(entering + (sequence * chunks + part) * dim * STATE, tile, inside, not EVEN).to(tl.float32)
    token = arange(TOKENS, SPREAD_TOKENS)[None, :]
    channel = origin + arange(CHANNELS, SPREAD_CHANNELS)
    bias, skip = 0.0, 0.0
    if HAS_BIAS:
        bias = read(delta_bias, channel, channel < limit, not EVEN).to(tl.float32)[:, None]
    if HAS_D:
        skip = read(D, channel, channel < limit, not EVEN).to(tl.float32)[:, None]
    channel = channel[:, None]
    B_tile, C_tile = rate, rate
    if B_CONSTANT:
        B_tile = read(B, tile, inside, not EVEN)
    if C_CONSTANT:
        C_tile = read(C, tile, inside, not EVEN)
    B += batch * B_batch + group * B_group + first * B_TOKEN
    C += batch * C_batch + group * C_group + first * C_TOKEN
    u += batch * u_batch + first * U
    delta += batch * delta_batch + first * DELTA
    z += batch * z_batch + first * Z
    y += (batch * length + first) * Y
    entries += first_segment(sequence, slot, begin, chunk, segments, SEGMENT, PACKED) * dim * STATE

    ROWS: tl.constexpr = rows_layout(STATES, TOKENS, GLUON)
    row_token, row_state = n, n
    if GLUON:
        row_token = arange(TOKENS, slice_of(ROWS, 1))[:, None]
        row_state = arange(STATES, slice_of(ROWS, 0))[None, :]

    full = steps // TOKENS * TOKENS
    zero = 0 * steps
    if full > 0:
        inputs = load_inputs(
            u, delta, z, y, zero, steps, token, channel, limit, U, DELTA, Z, Y, WAY, EVEN, HAS_Z, ADD, False
        )  # fmt: skip
        B_next = fetch_rows(
            B, zero, steps, row_token, row_state, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, False, GLUON
        )
        C_next = fetch_rows(
            C, zero, steps, row_token, row_state, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, False, GLUON
        )
        for start in range(0, full, TOKENS):
            next = tl.minimum(start + TOKENS, full - TOKENS)
            batch_inputs = inputs
            B_rows = spread_rows(memory[0], B_next, B_CONSTANT, GLUON)
            C_rows = spread_rows(memory[1], C_next, C_CONSTANT, GLUON)
            inputs = load_inputs(
                u, delta, z, y, next, steps, token, channel, limit, U, DELTA, Z, Y, WAY, EVEN, HAS_Z, ADD, False
            )  # fmt: skip
            B_next = fetch_rows(
                B, next, steps, row_token, row_state, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, False, GLUON
            )
            C_next = fetch_rows(
                C, next, steps, row_token, row_state, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, False, GLUON
            )
            if SAVE:
                if start % SEGMENT == 0:
                    tl.store(entries + tl.cast(start // SEGMENT, tl.int64) * dim * STATE + tile, h, inside)
            h = _advance(
                h, batch_inputs, B_rows, C_rows, B_tile, C_tile, y, start, steps, token, channel, limit, rate, bias,
                skip, Y, WAY, TOKENS, CHANNELS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, ADD, SOFTPLUS, False,
                STATES, SPREAD, WHOLE, TILE,
            )  # fmt: skip
    if full < steps:
        if SAVE:
            if full % SEGMENT == 0:
                tl.store(entries + tl.cast(full // SEGMENT, tl.int64) * dim * STATE + tile, h, inside)
        inputs = load_inputs(
            u, delta, z, y, full, steps, token, channel, limit, U, DELTA, Z, Y, WAY, EVEN, HAS_Z, ADD, True
        )  # fmt: skip
        B_next = fetch_rows(
            B, full, steps, row_token, row_state, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, True, GLUON
        )
        C_next = fetch_rows(
            C, full, steps, row_token, row_state, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, True, GLUON
        )
        B_rows = spread_rows(memory[0], B_next, B_CONSTANT, GLUON)
        C_rows = spread_rows(memory[1], C_next, C_CONSTANT, GLUON)
        h = _advance(
            h, inputs, B_rows, C_rows, B_tile, C_tile, y, full, steps, token, channel, limit, rate, bias, skip, Y, WAY,
            TOKENS, CHANNELS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, ADD, SOFTPLUS, True, STATES, SPREAD, WHOLE,
            TILE,
        )  # fmt: skip
    if part == chunks - 1:
        tl.store(leaving + sequence * dim * STATE + tile, h, inside)


def scan(
    tensors, z, y, cu_seqlens, length, dim, chunk, chunks, pad, channel_blocks, group_size, group_blocks, segments,
    strides, z_batch,
    STRIDES: tl.constexpr, Z: tl.constexpr, Y: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr, SOFTPLUS: tl.constexpr, PACKED: tl.constexpr,
    REVERSE: tl.constexpr, SAVE: tl.constexpr, SEGMENT: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """y and the last states; with ``SAVE`` the states before every segment too.

    ``tensors`` and the strides hold those of one direction (``REVERSE`` or not) or of both, which a program then scans
    one after the other over the same tokens: the second adds what the first has left in y, and applies the gate.
    Token strides are compile-time constants (a model has few), so that addresses within a batch cost nothing.
    """
    program = tl.program_id(0)
    block, row = program % channel_blocks, program // channel_blocks
    group = block // group_blocks
    origin = group * group_size + block % group_blocks * CHANNELS
    sequence, part = (row // chunks).to(tl.int64), row % chunks
    memory = (rows_memory(TOKENS, STATES, z, GLUON), rows_memory(TOKENS, STATES, z, GLUON))  # of B and C
    _walk(
        tensors[0], z, y, cu_seqlens, memory, group, origin, sequence, part, part, length, dim, chunk, chunks, 0,
        group_size, segments, strides[0], z_batch, STRIDES, 0, Z, Y, STATE, STATES, CHANNELS, TOKENS, EVEN, B_CONSTANT,
        C_CONSTANT, HAS_D, HAS_Z and len(STRIDES) == 1, HAS_BIAS, HAS_ENTERING, SOFTPLUS, PACKED, REVERSE, SAVE,
        SEGMENT, False, WARPS, GLUON,
    )  # fmt: skip
    if len(STRIDES) == 2:
        tl.debug_barrier()  # other lanes have stored what a lane now adds to
        _walk(
            tensors[1], z, y, cu_seqlens, memory, group, origin, sequence, chunks - 1 - part, part, length, dim,
            chunk, chunks, pad, group_size, segments, strides[1], z_batch, STRIDES, 1, Z, Y, STATE, STATES, CHANNELS,
            TOKENS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, HAS_BIAS, HAS_ENTERING, SOFTPLUS, PACKED, not REVERSE,
            SAVE, SEGMENT, True, WARPS, GLUON,
        )  # fmt: skip
