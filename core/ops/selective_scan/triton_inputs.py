# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""What the kernels of the selective scan read: where a chunk of a sequence lies, and its batches of tokens."""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import columns_of_two, read
from .._triton import softplus


@triton.jit
def find_chunk(cu_seqlens, sequence, part, length, chunk, pad, PACKED: tl.constexpr, REVERSE: tl.constexpr):
    """Where a part of a sequence lies.

    Returns the row of the batch, the offset of the sequence, the first token and the number of steps: step s of the
    chunk is the token ``first`` + s, or - s in reverse. The first chunk lacks ``pad`` steps, so that chunks from both
    ends can have common boundaries.
    """
    if PACKED:
        begin = tl.load(cu_seqlens + sequence).to(tl.int64)
        tokens = tl.load(cu_seqlens + sequence + 1).to(tl.int64) - begin
        batch = 0 * sequence
    else:
        begin, tokens, batch = 0 * sequence, length + 0 * sequence, sequence
    after = (tl.cast(part, tl.int64) + 1) * chunk - pad
    before = tl.maximum(after - chunk, 0)
    first = begin + before
    if REVERSE:
        first = begin + tokens - 1 - before
    return batch, begin, first, (tl.minimum(tokens, after) - before).to(tl.int32)


@triton.jit
def first_segment(sequence, slot, begin, chunk, segments, SEGMENT: tl.constexpr, PACKED: tl.constexpr):
    """The row of the first saved state of the chunk ``slot``, of which only the last may be short."""
    if PACKED:
        return begin // SEGMENT + sequence
    else:
        return sequence * segments + tl.cast(slot, tl.int64) * (chunk // SEGMENT)


@triton.jit
def fetch_rows(
    matrix, start, steps, token, n,
    STRIDE: tl.constexpr, WAY: tl.constexpr, TOKENS: tl.constexpr, STATE: tl.constexpr, EVEN: tl.constexpr,
    CONSTANT: tl.constexpr, LAST: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """B or C of a batch as it lies in memory: (tokens, states), every element in one lane, or without layouts a tuple
    of rows. Zero beyond the end; nothing useful where the matrix is constant in time."""
    origin = matrix + tl.cast(start, tl.int64) * (WAY * STRIDE)
    if CONSTANT:
        return token
    elif GLUON:
        mask = n < STATE
        if LAST:
            mask = mask & (start + token < steps)
        return read(origin, token * (WAY * STRIDE) + n, mask, LAST or not EVEN)
    else:
        rows = ()
        for j in tl.static_range(TOKENS):
            rows = rows + (tl.load(origin + (WAY * STRIDE * j) + n, (n < STATE) & (start + j < steps), 0.0),)
        return rows


@triton.jit
def spread_rows(memory, rows, CONSTANT: tl.constexpr, GLUON: tl.constexpr):
    """Hand what :func:`fetch_rows` has brought to all lanes, in float32 and through shared memory."""
    if GLUON and not CONSTANT:
        memory.store(rows.to(tl.float32))
        return memory
    else:
        return rows


@triton.jit
def row_of(rows, constant, j: tl.constexpr, CONSTANT: tl.constexpr, TILE: tl.constexpr):
    """B or C of a batch's token j in float32, to be broadcast over channels."""
    if CONSTANT:
        return constant.to(tl.float32)
    elif TILE is None:
        return rows[j].to(tl.float32)[None, :]
    else:
        return rows.slice(j, 1).load(TILE)


@triton.jit
def load_inputs(
    u, delta, z, y, start, steps, token, channel, limit,
    U: tl.constexpr, DELTA: tl.constexpr, Z: tl.constexpr, Y: tl.constexpr, WAY: tl.constexpr, EVEN: tl.constexpr,
    HAS_Z: tl.constexpr, ADD: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """u, delta, z and (to ``ADD`` to it) y of a batch, each (channels, tokens) as it lies in memory."""
    step = tl.cast(start, tl.int64) * WAY
    t = WAY * token
    mask = (start + token < steps) & (channel < limit)
    if EVEN:
        mask = start + token < steps
    u_batch = read(u + step * U, t * U + channel, mask, LAST or not EVEN)
    delta_batch = read(delta + step * DELTA, t * DELTA + channel, mask, LAST or not EVEN)
    z_batch, y_batch = u_batch, u_batch
    if HAS_Z:
        z_batch = read(z + step * Z, t * Z + channel, mask, LAST or not EVEN)
    if ADD:
        y_batch = read(y + step * Y, t * Y + channel, mask, LAST or not EVEN)
    return u_batch, delta_batch, z_batch, y_batch


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
def prepare(
    inputs, bias, valid,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, SOFTPLUS: tl.constexpr, LAST: tl.constexpr, WHOLE: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):  # fmt: skip
    """dt and dt · u of a batch, each a tuple over tokens of (channels,)."""
    dt = step_sizes(inputs[1], bias, valid, SOFTPLUS, LAST)
    dt_u = dt * inputs[0].to(tl.float32)
    return columns_of_two(dt, dt_u, CHANNELS, TOKENS, WHOLE, TILE_CHANNELS)
