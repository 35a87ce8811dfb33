# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The forward pass of the selective scan as a kernel.

A program walks along one sequence, or one chunk of it, with the states of a block of channels in registers. It takes
batches of tokens: the elementwise part (step sizes, gates) is spread over the lanes, every (channel, token) once; its
results are then handed to all four lanes of a channel, which advance a quarter of the states each. While one batch is
computed, the inputs of the next are on their way.
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
    sigmoid,
    slice_of,
    spread_layout,
    sum_lanes,
    tile_layout,
    whole_layout,
    zeros,
)  # fmt: skip
from .._triton import LOG2_E, softplus


@triton.jit
def find_chunk(
    cu_seqlens, length, chunk, chunks, part_offset, group_size, group_blocks, channel_blocks,
    CHANNELS: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """What a program works on.

    Returns its block of channels, their group, the first channel and the end of the group; the sequence, the part of
    it, the row of the batch, the offset of the sequence; and the first token and the number of steps: step s of the
    chunk is the token ``first`` + s, or - s in reverse.
    """
    program = tl.program_id(0)
    block, row = program % channel_blocks, program // channel_blocks
    group = block // group_blocks
    channel = group * group_size + block % group_blocks * CHANNELS
    sequence, part = (row // chunks).to(tl.int64), row % chunks + part_offset
    before = tl.cast(part, tl.int64) * chunk
    if PACKED:
        begin = tl.load(cu_seqlens + sequence).to(tl.int64)
        tokens = tl.load(cu_seqlens + sequence + 1).to(tl.int64) - begin
        batch = 0 * sequence
    else:
        begin, tokens, batch = 0 * sequence, length + 0 * sequence, sequence
    first = begin + before
    if REVERSE:
        first = begin + tokens - 1 - before
    steps = tl.minimum(tokens - before, chunk).to(tl.int32)
    return block, group, channel, (group + 1) * group_size, sequence, part, batch, begin, first, steps


@triton.jit
def load_rows(
    matrix, constant, n, start, steps,
    STRIDE: tl.constexpr, WAY: tl.constexpr, TOKENS: tl.constexpr, STATES: tl.constexpr, EVEN: tl.constexpr,
    CONSTANT: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """B or C at ``TOKENS`` tokens, each (states,); where it is constant in time the tile (channels, states)."""
    rows = ()
    origin = matrix + tl.cast(start, tl.int64) * (WAY * STRIDE)
    for j in tl.static_range(TOKENS):
        if CONSTANT:
            rows = rows + (constant,)
        else:
            if LAST:
                offset = tl.minimum(steps - 1 - start, j) * (WAY * STRIDE)
            else:
                offset = WAY * STRIDE * j
            rows = rows + (read(origin, offset + n, n < STATES, not EVEN),)
    return rows


@triton.jit
def as_tile(row, CONSTANT: tl.constexpr):
    """An element of :func:`load_rows` in float32, to be broadcast over channels."""
    if CONSTANT:
        return row.to(tl.float32)
    else:
        return row.to(tl.float32)[None, :]


@triton.jit
def load_inputs(
    u, delta, z, start, steps, token, channel, limit,
    U: tl.constexpr, DELTA: tl.constexpr, Z: tl.constexpr, WAY: tl.constexpr, EVEN: tl.constexpr,
    HAS_Z: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """u, delta and z of a batch, each (channels, tokens) as it lies in memory."""
    step = tl.cast(start, tl.int64) * WAY
    t = WAY * token
    mask = (start + token < steps) & (channel < limit)
    if EVEN:
        mask = start + token < steps
    u_batch = read(u + step * U, t * U + channel, mask, LAST or not EVEN)
    delta_batch = read(delta + step * DELTA, t * DELTA + channel, mask, LAST or not EVEN)
    z_batch = u_batch
    if HAS_Z:
        z_batch = read(z + step * Z, t * Z + channel, mask, LAST or not EVEN)
    return u_batch, delta_batch, z_batch


@triton.jit
def step_sizes(delta_batch, bias, valid, SOFTPLUS: tl.constexpr, LAST: tl.constexpr):
    """dt of a batch; 0, which leaves a state as it is, beyond the end."""
    dt = delta_batch.to(tl.float32) + bias
    if SOFTPLUS:
        dt = softplus(dt)
    if LAST:
        dt = tl.where(valid, dt, 0.0)
    return dt


@triton.jit
def _advance(
    h, inputs, B_rows, C_rows, y, start, steps, token, channel, limit, rate, bias, skip,
    Y: tl.constexpr, WAY: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    SOFTPLUS: tl.constexpr, LAST: tl.constexpr, STATES: tl.constexpr, SPREAD: tl.constexpr, WHOLE: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):  # fmt: skip
    """The states after a batch of tokens; stores its y."""
    valid = start + token < steps
    u_batch = inputs[0].to(tl.float32)
    dt_batch = step_sizes(inputs[1], bias, valid, SOFTPLUS, LAST)
    dt = columns(arrange(dt_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
    dt_u = columns(arrange(dt_batch * u_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
    sums = ()
    for j in tl.static_range(TOKENS):
        B_t, C_t = as_tile(B_rows[j], B_CONSTANT), as_tile(C_rows[j], C_CONSTANT)
        h = tl.fma(tl.exp2(dt[j][:, None] * rate), h, dt_u[j][:, None] * B_t)
        sums = sums + (own_sum(h * C_t, CHANNELS, STATES),)
    out = sum_lanes(sums, 0, TOKENS, CHANNELS, SPREAD)
    if HAS_D:
        out += u_batch * skip
    if HAS_Z:
        gate = inputs[2].to(tl.float32)
        out *= gate * sigmoid(gate, SPREAD)
    place = (y + tl.cast(start, tl.int64) * (WAY * Y)) + (WAY * token * Y + channel)
    if EVEN and not LAST:
        tl.store(place, out.to(y.dtype.element_ty))
    else:
        tl.store(place, out.to(y.dtype.element_ty), valid & (channel < limit))
    return h


def scan(
    u, delta, A, B, C, D, z, delta_bias, entering, cu_seqlens, y, leaving, entries,
    length, dim, chunk, chunks, channel_blocks, group_size, group_blocks, segments,
    u_batch, delta_batch, z_batch, B_batch, B_group, C_batch, C_group,
    U: tl.constexpr, DELTA: tl.constexpr, Z: tl.constexpr, B_TOKEN: tl.constexpr, C_TOKEN: tl.constexpr,
    Y: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr, SOFTPLUS: tl.constexpr, PACKED: tl.constexpr,
    REVERSE: tl.constexpr, SAVE: tl.constexpr, SEGMENT: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """y and the last states; with ``SAVE`` the states before every segment too.

    Token strides are compile-time constants (a model has few), so that addresses within a batch cost nothing.
    """
    TILE: tl.constexpr = tile_layout(STATES, WARPS, GLUON)
    TILE_STATES: tl.constexpr = slice_of(TILE, 0)
    TILE_CHANNELS: tl.constexpr = slice_of(TILE, 1)
    SPREAD: tl.constexpr = spread_layout(STATES, TOKENS, WARPS, GLUON)
    SPREAD_TOKENS: tl.constexpr = slice_of(SPREAD, 0)
    SPREAD_CHANNELS: tl.constexpr = slice_of(SPREAD, 1)
    WHOLE: tl.constexpr = whole_layout(STATES, TOKENS, WARPS, GLUON)
    _, group, origin, limit, sequence, part, batch, begin, first, steps = find_chunk(
        cu_seqlens, length, chunk, chunks, 0, group_size, group_blocks, channel_blocks, CHANNELS, PACKED, REVERSE
    )
    WAY: tl.constexpr = -1 if REVERSE else 1
    row = sequence * chunks + part
    n = arange(STATES, TILE_STATES)
    c = (origin + arange(CHANNELS, TILE_CHANNELS))[:, None]
    tile = c * STATE + n[None, :]
    inside = (c < limit) & (n < STATE)[None, :]
    rate = read(A, tile, inside, not EVEN).to(tl.float32) * LOG2_E
    h = zeros(CHANNELS, STATES, TILE)
    if HAS_ENTERING:
        h = read(entering + row * dim * STATE, tile, inside, not EVEN).to(tl.float32)
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
    if PACKED:
        segment = begin // SEGMENT + sequence
    else:
        segment = sequence * segments
    entries += (segment + tl.cast(part, tl.int64) * (chunk // SEGMENT)) * dim * STATE

    # Batches in pairs, so that inputs arrive where they are used and need not be moved.
    pairs = steps // (2 * TOKENS) * (2 * TOKENS)
    if pairs > 0:
        zero = 0 * steps
        even = load_inputs(u, delta, z, zero, steps, token, channel, limit, U, DELTA, Z, WAY, EVEN, HAS_Z, False)
        B_even = load_rows(B, B_tile, n, zero, steps, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, False)
        C_even = load_rows(C, C_tile, n, zero, steps, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, False)
        for start in range(0, pairs, 2 * TOKENS):
            middle, next = start + TOKENS, tl.minimum(start + 2 * TOKENS, pairs - TOKENS)
            odd = load_inputs(u, delta, z, middle, steps, token, channel, limit, U, DELTA, Z, WAY, EVEN, HAS_Z, False)
            B_odd = load_rows(B, B_tile, n, middle, steps, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, False)
            C_odd = load_rows(C, C_tile, n, middle, steps, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, False)
            if SAVE:
                if start % SEGMENT == 0:
                    tl.store(entries + tl.cast(start // SEGMENT, tl.int64) * dim * STATE + tile, h, inside)
            h = _advance(
                h, even, B_even, C_even, y, start, steps, token, channel, limit, rate, bias, skip, Y, WAY, TOKENS,
                CHANNELS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, SOFTPLUS, False, STATES, SPREAD, WHOLE,
                TILE_CHANNELS,
            )  # fmt: skip
            even = load_inputs(u, delta, z, next, steps, token, channel, limit, U, DELTA, Z, WAY, EVEN, HAS_Z, False)
            B_even = load_rows(B, B_tile, n, next, steps, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, False)
            C_even = load_rows(C, C_tile, n, next, steps, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, False)
            h = _advance(
                h, odd, B_odd, C_odd, y, middle, steps, token, channel, limit, rate, bias, skip, Y, WAY, TOKENS,
                CHANNELS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, SOFTPLUS, False, STATES, SPREAD, WHOLE,
                TILE_CHANNELS,
            )  # fmt: skip
    for start in range(pairs, steps, TOKENS):
        if SAVE:
            if start % SEGMENT == 0:
                tl.store(entries + tl.cast(start // SEGMENT, tl.int64) * dim * STATE + tile, h, inside)
        last = load_inputs(u, delta, z, start, steps, token, channel, limit, U, DELTA, Z, WAY, EVEN, HAS_Z, True)
        B_last = load_rows(B, B_tile, n, start, steps, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, True)
        C_last = load_rows(C, C_tile, n, start, steps, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, True)
        h = _advance(
            h, last, B_last, C_last, y, start, steps, token, channel, limit, rate, bias, skip, Y, WAY, TOKENS,
            CHANNELS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, SOFTPLUS, True, STATES, SPREAD, WHOLE,
            TILE_CHANNELS,
        )  # fmt: skip
    if part == chunks - 1:
        tl.store(leaving + sequence * dim * STATE + tile, h, inside)
