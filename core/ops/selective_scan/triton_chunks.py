# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""How long sequences are cut: what enters every chunk, from the left for states, from the right for their gradients.

A kernel runs through all chunks at once from zero and keeps only what they end with; another carries that through the
chunks, in which a state decays by exp(A · sum of the steps).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import arange, read, rows_layout, rows_memory, sigmoid, slice_of, state_layout, widened
from .._triton import LOG2_E
from .triton_inputs import (
    fetch_rows,
    find_chunk,
    load_batch,
    of_token,
    row_of,
    spread_rows,
    state_of,
    step_sizes,
)  # fmt: skip
from .triton_rings import receive, receive_rows, ring, send, source, wait


@triton.jit
def _prepare(
    x, z, delta, bias, start, steps, token,
    TOKENS: tl.constexpr, PAIRS: tl.constexpr, HAS_Z: tl.constexpr, SOFTPLUS: tl.constexpr, GRADIENT: tl.constexpr,
    LAST: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """dt of a batch and what B or C is multiplied by."""
    dt, factors = (), ()
    for m in tl.static_range(TOKENS // 4):
        dt = dt + (step_sizes(delta[m], bias, start + 4 * m + token < steps, PAIRS, SOFTPLUS, LAST, SPREAD),)
        factor = widened(x[m], PAIRS, SPREAD)
        if not GRADIENT:
            factor *= dt[m]
        elif HAS_Z:
            gate = widened(z[m], PAIRS, SPREAD)
            factor *= gate * sigmoid(gate, SPREAD)
        factors = factors + (factor,)
    return dt, factors


@triton.jit
def _advance(
    h, summed, prepared, rows, constant, rate, lane,
    TOKENS: tl.constexpr, CONSTANT: tl.constexpr, GRADIENT: tl.constexpr, SPREAD: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    dt, factors = prepared
    for m in tl.static_range(TOKENS // 4):
        summed += dt[m]
    for j in tl.static_range(TOKENS):
        new = of_token(factors, lane, j, SPREAD) * row_of(rows, constant, j, TOKENS, CONSTANT, LANES)
        decay = tl.exp2(of_token(dt, lane, j, SPREAD) * rate)
        if GRADIENT:
            h = decay * (h + new)
        else:
            h = tl.fma(decay, h, new)
    return h, summed


@triton.jit
def _summarize(
    tensors, strides, z, z_batch, memory, rings, group, origin, sequence, part, length, dim, chunk, chunks, pad,
    group_size,
    STRIDES: tl.constexpr, WHICH: tl.constexpr, Z: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    CONSTANT: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr, GRADIENT: tl.constexpr, STAGED: tl.constexpr,
    ROW_BYTES: tl.constexpr, STAGES: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    LANES: tl.constexpr = state_layout(STATES, CHANNELS, GLUON)
    SPREAD: tl.constexpr = slice_of(LANES, 2)
    ROWS_LAYOUT: tl.constexpr = rows_layout(STATES, TOKENS, GLUON)
    PAIRS: tl.constexpr = CHANNELS == 16
    WAY: tl.constexpr = -1 if REVERSE != GRADIENT else 1
    ROWS: tl.constexpr = STRIDES[WHICH][2]
    X: tl.constexpr = STRIDES[WHICH][0]
    DELTA: tl.constexpr = STRIDES[WHICH][1]
    GATED: tl.constexpr = HAS_Z and GRADIENT
    x, delta, A, rows, delta_bias, ends, total_dt = tensors
    x_batch, delta_batch, rows_batch, rows_group = strides
    batch, _, first, steps = find_chunk(delta, sequence, part, length, chunk, pad, False, REVERSE)
    if GRADIENT:  # from the last step of the chunk to its first
        first -= (steps - 1) * WAY
    limit = (group + 1) * group_size
    own = origin + arange(CHANNELS, slice_of(SPREAD, 1))
    channel = own[:, None]
    token = arange(4, slice_of(SPREAD, 0))[None, :]
    lane = token + 0 * channel
    n = state_of(STATES // 4, LANES)
    c = channel[:, :, None]
    tile = c * STATE + n
    inside = (c < limit) & (n < STATE)
    rate = read(A, tile, inside, not EVEN).to(tl.float32) * LOG2_E
    bias = 0.0
    if HAS_BIAS:
        bias = read(delta_bias, channel, channel < limit, not EVEN).to(tl.float32)
    row_token = arange(TOKENS, slice_of(slice_of(ROWS_LAYOUT, 2), 1))[:, None][:, :, None]
    row_state = state_of(STATES // 4, ROWS_LAYOUT)
    constant = rate
    if CONSTANT:
        constant = read(rows, tile, inside, not EVEN)
    else:
        rows += batch * rows_batch + group * rows_group + first * ROWS
    x += batch * x_batch + first * X
    delta += batch * delta_batch + first * DELTA
    z += batch * z_batch + first * Z
    sources = (
        source(x + origin, WAY * X, TOKENS, CHANNELS, 16, STAGED),
        source(delta + origin, WAY * DELTA, TOKENS, CHANNELS, 16, STAGED),
        source(z + origin, WAY * Z, TOKENS, CHANNELS, 16, STAGED and GATED),
        source(rows, WAY * ROWS, TOKENS, STATES, ROW_BYTES, STAGED and not CONSTANT),
    )
    x = x + (WAY * X * token + channel)
    delta = delta + (WAY * DELTA * token + channel)
    z = z + (WAY * Z * token + channel)
    if not CONSTANT:
        rows = rows + (WAY * ROWS * row_token + row_state)
    h = 0.0 * rate
    summed = 0.0 * lane
    done = 0 * steps
    if STAGED:
        full = steps // TOKENS * TOKENS
        if full > 0:
            last = full - TOKENS
            WANTED: tl.constexpr = (True, True, GATED, not CONSTANT)
            STEPS: tl.constexpr = (WAY * X, WAY * DELTA, WAY * Z, WAY * ROWS)
            WIDTHS: tl.constexpr = (16, 16, 16, ROW_BYTES)
            for stage in tl.static_range(STAGES - 1):
                ahead = tl.minimum(done + stage * TOKENS, last)
                send(rings, sources, stage, ahead, steps, STAGES, STEPS, WIDTHS, WANTED, False)
            wait(STAGES - 2)
            x_next = receive(rings[0], 0, STAGES, TOKENS, SPREAD)
            gate_next = x_next
            if GATED:
                gate_next = receive(rings[2], 0, STAGES, TOKENS, SPREAD)
            delta_next = receive(rings[1], 0, STAGES, TOKENS, SPREAD)
            prepared = _prepare(
                x_next, gate_next, delta_next, bias, done, steps, token, TOKENS, PAIRS, HAS_Z, SOFTPLUS, GRADIENT,
                False, SPREAD,
            )  # fmt: skip
            for start in range(0, full, TOKENS):
                # As in the forward pass, a batch is prepared while the one before it advances.
                index = start // TOKENS
                wait(STAGES - 3)
                raw = receive_rows(rings[3], index, row_token, STAGES, TOKENS, STATES, not CONSTANT, ROWS_LAYOUT)
                rows_now = spread_rows(memory, raw, CONSTANT, ROWS_LAYOUT)
                x_next = receive(rings[0], index + 1, STAGES, TOKENS, SPREAD)
                gate_next = x_next
                if GATED:
                    gate_next = receive(rings[2], index + 1, STAGES, TOKENS, SPREAD)
                delta_next = receive(rings[1], index + 1, STAGES, TOKENS, SPREAD)
                ahead = tl.minimum(start + (STAGES - 1) * TOKENS, last)
                send(rings, sources, index + STAGES - 1, ahead, steps, STAGES, STEPS, WIDTHS, WANTED, False)
                prepared_next = _prepare(
                    x_next, gate_next, delta_next, bias, start, steps, token, TOKENS, PAIRS, HAS_Z, SOFTPLUS, GRADIENT,
                    False, SPREAD,
                )  # fmt: skip
                h, summed = _advance(
                    h, summed, prepared, rows_now, constant, rate, lane, TOKENS, CONSTANT, GRADIENT, SPREAD, LANES
                )
                prepared = prepared_next
            wait(0)
            done = full
    if done < steps:
        x_after = load_batch(x, done, steps, token, channel, limit, X, WAY, TOKENS, EVEN)
        delta_after = load_batch(delta, done, steps, token, channel, limit, DELTA, WAY, TOKENS, EVEN)
        gate_after = x_after
        if GATED:
            gate_after = load_batch(z, done, steps, token, channel, limit, Z, WAY, TOKENS, EVEN)
        rows_after = fetch_rows(rows, done, steps, row_token, row_state, ROWS, WAY, STATE, CONSTANT)
        for begin in range(done, steps, TOKENS):
            here = _prepare(
                x_after, gate_after, delta_after, bias, begin, steps, token, TOKENS, PAIRS, HAS_Z, SOFTPLUS, GRADIENT,
                True, SPREAD,
            )  # fmt: skip
            rows_here = spread_rows(memory, rows_after, CONSTANT, ROWS_LAYOUT)
            after = begin + TOKENS
            x_after = load_batch(x, after, steps, token, channel, limit, X, WAY, TOKENS, EVEN)
            delta_after = load_batch(delta, after, steps, token, channel, limit, DELTA, WAY, TOKENS, EVEN)
            gate_after = x_after
            if GATED:
                gate_after = load_batch(z, after, steps, token, channel, limit, Z, WAY, TOKENS, EVEN)
            rows_after = fetch_rows(rows, after, steps, row_token, row_state, ROWS, WAY, STATE, CONSTANT)
            h, summed = _advance(
                h, summed, here, rows_here, constant, rate, lane, TOKENS, CONSTANT, GRADIENT, SPREAD, LANES
            )
    row = sequence * chunks + part
    tl.store(ends + row * dim * STATE + tile, h, inside)
    tl.store(total_dt + row * dim + own, tl.sum(summed, axis=1), own < limit)


def summarize(
    tensors, strides, z, z_batch, length, dim, chunk, chunks, pad, channel_blocks, group_size, group_blocks,
    STRIDES: tl.constexpr, Z: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    CONSTANT: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr, GRADIENT: tl.constexpr, STAGED: tl.constexpr,
    ROW_BYTES: tl.constexpr, STAGES: tl.constexpr, WARPS: tl.constexpr, GLUON: tl.constexpr,
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
    t = tensors[0]
    rings = (
        ring(t[0], STAGES, TOKENS, CHANNELS, STAGED),
        ring(t[1], STAGES, TOKENS, CHANNELS, STAGED),
        ring(z, STAGES, TOKENS, CHANNELS, STAGED and HAS_Z and GRADIENT),
        ring(t[3], STAGES, TOKENS, STATES, STAGED and not CONSTANT),
    )
    if tl.program_id(1) == 0:
        _summarize(
            tensors[0], strides[0], z, z_batch, memory, rings, group, origin, sequence, part, length, dim, chunk,
            chunks, 0, group_size, STRIDES, 0, Z, STATE, STATES, CHANNELS, TOKENS, EVEN, CONSTANT, HAS_Z, HAS_BIAS,
            SOFTPLUS, REVERSE, GRADIENT, STAGED, ROW_BYTES, STAGES, GLUON,
        )  # fmt: skip
    elif len(STRIDES) == 2:
        _summarize(
            tensors[1], strides[1], z, z_batch, memory, rings, group, origin, sequence, part, length, dim, chunk,
            chunks, pad, group_size, STRIDES, 1, Z, STATE, STATES, CHANNELS, TOKENS, EVEN, CONSTANT, HAS_Z, HAS_BIAS,
            SOFTPLUS, not REVERSE, GRADIENT, STAGED, ROW_BYTES, STAGES, GLUON,
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
