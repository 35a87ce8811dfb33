# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""What the kernels of the selective scan read: where a chunk of a sequence lies, and its batches of tokens."""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import arange, from_lane, slice_of, widened
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
def state_of(own: tl.constexpr, LAYOUT: tl.constexpr):
    """The states of a tile (…, 4, own), as (1, 4, own)."""
    quarter = arange(4, slice_of(slice_of(LAYOUT, 2), 0))[None, :][:, :, None]
    return quarter * own + arange(own, slice_of(slice_of(LAYOUT, 0), 0))[None, :][None, :, :]


@triton.jit
def fetch_rows(
    matrix, start, steps, token, n,
    STRIDE: tl.constexpr, WAY: tl.constexpr, STATE: tl.constexpr, CONSTANT: tl.constexpr,
):  # fmt: skip
    """B or C of a batch as it lies in memory, (tokens, 4, states / 4), from pointers to that of the first batch. Zero
    beyond the end; nothing useful where the matrix is constant in time."""
    if CONSTANT:
        return token
    else:
        mask = (n < STATE) & (start + token < steps)
        return tl.load(matrix + tl.cast(start, tl.int64) * (WAY * STRIDE), mask, 0.0)


@triton.jit
def spread_rows(memory, rows, CONSTANT: tl.constexpr, LAYOUT: tl.constexpr):
    """Hand what :func:`fetch_rows` has brought to all lanes, in float32 and through shared memory."""
    if LAYOUT is None or CONSTANT:
        return rows
    else:
        memory.store(widened(rows, True, LAYOUT))
        return memory


@triton.jit
def row_of(rows, constant, j: tl.constexpr, TOKENS: tl.constexpr, CONSTANT: tl.constexpr, LAYOUT: tl.constexpr):
    """B or C of a batch's token j in float32, (channels or 1, 4, states / 4)."""
    if CONSTANT:
        return constant.to(tl.float32)
    elif LAYOUT is None:
        chosen = tl.arange(0, TOKENS)[:, None, None] == j
        return tl.sum(tl.where(chosen, rows.to(tl.float32), 0.0), axis=0)[None, :, :]
    else:
        return rows.slice(j, 1).load(LAYOUT)


@triton.jit
def load_batch(
    pointer, start, steps, token, channel, limit,
    STRIDE: tl.constexpr, WAY: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """u, delta, z or y of a batch from pointers to that of the first four tokens: a tuple of (channels, 4), one for
    every four tokens, with zeros beyond the end."""
    pointer += tl.cast(start, tl.int64) * (WAY * STRIDE)
    found = ()
    for m in tl.static_range(TOKENS // 4):
        mask = (start + 4 * m + token < steps) & (channel < limit)
        if EVEN:
            mask = start + 4 * m + token < steps
        found = found + (tl.load(pointer + 4 * m * WAY * STRIDE, mask, 0.0),)
    return found


@triton.jit
def step_sizes(
    delta, bias, valid, PAIRS: tl.constexpr, SOFTPLUS: tl.constexpr, LAST: tl.constexpr, LAYOUT: tl.constexpr
):
    """dt of four tokens; 0, which leaves a state as it is, beyond the end."""
    dt = widened(delta, PAIRS, LAYOUT) + bias
    if SOFTPLUS:
        dt = softplus(dt)
    if LAST:
        dt = tl.where(valid, dt, 0.0)
    return dt


@triton.jit
def of_token(batch, lane, j: tl.constexpr, LAYOUT: tl.constexpr):
    """A batch's token j, (channels, 4, 1) with the same in all four lanes of a channel."""
    return from_lane(batch[j // 4], lane, j % 4, LAYOUT)[:, :, None]
