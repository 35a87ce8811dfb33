# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The forward pass of the selective scan as a kernel.

A program is a warp. It walks along one sequence, or one chunk of it, with the states of a block of channels in
registers, and takes batches of tokens: the elementwise part (step sizes, gates) is spread over the lanes, every
(channel, token) once; the four lanes of a channel, which advance a quarter of its states each, then get its results by
shuffles. B and C, which all channels need, are converted once and handed on through shared memory: neither registers
nor instructions would suffice for every lane to load them. While a batch is computed, the step sizes of the next are
prepared and the inputs of those after it are on their way, so that a warp that is alone on its scheduler rarely waits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import (
    arange,
    four_sums,
    read,
    rows_layout,
    rows_memory,
    sigmoid,
    slice_of,
    state_layout,
    widened,
)  # fmt: skip
from .._triton import LOG2_E
from .triton_inputs import (
    fetch_rows,
    find_chunk,
    first_segment,
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
    u, delta, bias, start, steps, token,
    TOKENS: tl.constexpr, PAIRS: tl.constexpr, SOFTPLUS: tl.constexpr, LAST: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """dt and dt · u of a batch."""
    dt, dt_u = (), ()
    for m in tl.static_range(TOKENS // 4):
        valid = start + 4 * m + token < steps
        dt = dt + (step_sizes(delta[m], bias, valid, PAIRS, SOFTPLUS, LAST, SPREAD),)
        dt_u = dt_u + (dt[m] * widened(u[m], PAIRS, SPREAD),)
    return dt, dt_u


@triton.jit
def _advance(
    h, prepared, u, z, y_before, B_rows, C_rows, B_tile, C_tile, y, start, steps, token, channel, lane, limit, rate,
    skip,
    Y: tl.constexpr, WAY: tl.constexpr, TOKENS: tl.constexpr, PAIRS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr, ADD: tl.constexpr,
    LAST: tl.constexpr, SPREAD: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The states after a batch of tokens; stores its y."""
    dt, dt_u = prepared
    sums = ()
    for j in tl.static_range(TOKENS):
        new = of_token(dt_u, lane, j, SPREAD) * row_of(B_rows, B_tile, j, TOKENS, B_CONSTANT, LANES)
        h = tl.fma(tl.exp2(of_token(dt, lane, j, SPREAD) * rate), h, new)
        sums = sums + (tl.sum(h * row_of(C_rows, C_tile, j, TOKENS, C_CONSTANT, LANES), axis=2),)
    y += tl.cast(start, tl.int64) * (WAY * Y)
    for m in tl.static_range(TOKENS // 4):
        out = four_sums(sums, 4 * m, lane, SPREAD)
        if HAS_D:
            out += widened(u[m], PAIRS, SPREAD) * skip
        if ADD:
            out += widened(y_before[m], PAIRS, SPREAD)
        if HAS_Z:
            gate = widened(z[m], PAIRS, SPREAD)
            out *= gate * sigmoid(gate, SPREAD)
        place = y + 4 * m * WAY * Y
        if EVEN and not LAST:
            tl.store(place, out.to(y.dtype.element_ty))
        else:
            tl.store(place, out.to(y.dtype.element_ty), (start + 4 * m + token < steps) & (channel < limit))
    return h


@triton.jit
def _walk(
    tensors, z, y, cu_seqlens, memory, rings, group, origin, sequence, part, slot, length, dim, chunk, chunks,
    pad, group_size, segments, strides, z_batch,
    STRIDES: tl.constexpr, WHICH: tl.constexpr, Z: tl.constexpr, Y: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr, SOFTPLUS: tl.constexpr, PACKED: tl.constexpr,
    REVERSE: tl.constexpr, SAVE: tl.constexpr, SEGMENT: tl.constexpr, ADD: tl.constexpr, STAGED: tl.constexpr,
    ROW_BYTES: tl.constexpr, STAGES: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """Scan one chunk in one direction; with ``ADD`` y already holds the other direction."""
    LANES: tl.constexpr = state_layout(STATES, CHANNELS, GLUON)
    SPREAD: tl.constexpr = slice_of(LANES, 2)
    ROWS: tl.constexpr = rows_layout(STATES, TOKENS, GLUON)
    PAIRS: tl.constexpr = CHANNELS == 16
    WAY: tl.constexpr = -1 if REVERSE else 1
    U: tl.constexpr = STRIDES[WHICH][0]
    DELTA: tl.constexpr = STRIDES[WHICH][1]
    B_TOKEN: tl.constexpr = STRIDES[WHICH][2]
    C_TOKEN: tl.constexpr = STRIDES[WHICH][3]
    u, delta, A, B, C, D, delta_bias, entering, leaving, entries = tensors
    u_batch, delta_batch, B_batch, B_group, C_batch, C_group = strides
    batch, begin, first, steps = find_chunk(cu_seqlens, sequence, part, length, chunk, pad, PACKED, REVERSE)
    limit = (group + 1) * group_size
    channel = (origin + arange(CHANNELS, slice_of(SPREAD, 1)))[:, None]
    token = arange(4, slice_of(SPREAD, 0))[None, :]
    lane = token + 0 * channel
    n = state_of(STATES // 4, LANES)
    c = channel[:, :, None]
    tile = c * STATE + n
    inside = (c < limit) & (n < STATE)
    rate = read(A, tile, inside, not EVEN).to(tl.float32) * LOG2_E
    h = 0.0 * rate
    if HAS_ENTERING:
        h = read(entering + (sequence * chunks + part) * dim * STATE, tile, inside, not EVEN).to(tl.float32)
    bias, skip = 0.0, 0.0
    if HAS_BIAS:
        bias = read(delta_bias, channel, channel < limit, not EVEN).to(tl.float32)
    if HAS_D:
        skip = read(D, channel, channel < limit, not EVEN).to(tl.float32)
    row_token = arange(TOKENS, slice_of(slice_of(ROWS, 2), 1))[:, None][:, :, None]
    row_state = state_of(STATES // 4, ROWS)
    B_tile, C_tile = rate, rate
    if B_CONSTANT:
        B_tile = read(B, tile, inside, not EVEN)
    else:
        B += batch * B_batch + group * B_group + first * B_TOKEN
    if C_CONSTANT:
        C_tile = read(C, tile, inside, not EVEN)
    else:
        C += batch * C_batch + group * C_group + first * C_TOKEN
    u += batch * u_batch + first * U
    delta += batch * delta_batch + first * DELTA
    z += batch * z_batch + first * Z
    y += (batch * length + first) * Y
    sources = (
        source(u + origin, WAY * U, TOKENS, CHANNELS, 16, STAGED),
        source(delta + origin, WAY * DELTA, TOKENS, CHANNELS, 16, STAGED),
        source(z + origin, WAY * Z, TOKENS, CHANNELS, 16, STAGED and HAS_Z),
        source(y + origin, WAY * Y, TOKENS, CHANNELS, 16, STAGED and ADD),
        source(B, WAY * B_TOKEN, TOKENS, STATES, ROW_BYTES, STAGED and not B_CONSTANT),
        source(C, WAY * C_TOKEN, TOKENS, STATES, ROW_BYTES, STAGED and not C_CONSTANT),
    )
    u = u + (WAY * U * token + channel)
    delta = delta + (WAY * DELTA * token + channel)
    z = z + (WAY * Z * token + channel)
    y = y + (WAY * Y * token + channel)
    if not B_CONSTANT:
        B = B + (WAY * B_TOKEN * row_token + row_state)
    if not C_CONSTANT:
        C = C + (WAY * C_TOKEN * row_token + row_state)
    entries += first_segment(sequence, slot, begin, chunk, segments, SEGMENT, PACKED) * dim * STATE

    done = 0 * steps
    if STAGED:
        full = steps // TOKENS * TOKENS
        if full > 0:
            last = full - TOKENS
            WANTED: tl.constexpr = (True, True, HAS_Z, ADD, not B_CONSTANT, not C_CONSTANT)
            STEPS: tl.constexpr = (WAY * U, WAY * DELTA, WAY * Z, WAY * Y, WAY * B_TOKEN, WAY * C_TOKEN)
            WIDTHS: tl.constexpr = (16, 16, 16, 16, ROW_BYTES, ROW_BYTES)
            for stage in tl.static_range(STAGES - 1):
                ahead = tl.minimum(done + stage * TOKENS, last)
                send(rings, sources, stage, ahead, steps, STAGES, STEPS, WIDTHS, WANTED, False)
            wait(STAGES - 2)
            u_now = receive(rings[0], 0, STAGES, TOKENS, SPREAD)
            delta_next = receive(rings[1], 0, STAGES, TOKENS, SPREAD)
            prepared = _prepare(u_now, delta_next, bias, done, steps, token, TOKENS, PAIRS, SOFTPLUS, False, SPREAD)
            for start in range(0, full, TOKENS):
                index = start // TOKENS
                wait(STAGES - 3)
                B_raw = receive_rows(rings[4], index, row_token, STAGES, TOKENS, STATES, not B_CONSTANT, ROWS)
                C_raw = receive_rows(rings[5], index, row_token, STAGES, TOKENS, STATES, not C_CONSTANT, ROWS)
                B_rows = spread_rows(memory[0], B_raw, B_CONSTANT, ROWS)
                C_rows = spread_rows(memory[1], C_raw, C_CONSTANT, ROWS)
                gate, y_before = u_now, u_now
                if HAS_Z:
                    gate = receive(rings[2], index, STAGES, TOKENS, SPREAD)
                if ADD:
                    y_before = receive(rings[3], index, STAGES, TOKENS, SPREAD)
                u_next = receive(rings[0], index + 1, STAGES, TOKENS, SPREAD)
                delta_next = receive(rings[1], index + 1, STAGES, TOKENS, SPREAD)
                ahead = tl.minimum(start + (STAGES - 1) * TOKENS, last)
                send(rings, sources, index + STAGES - 1, ahead, steps, STAGES, STEPS, WIDTHS, WANTED, False)
                if SAVE:
                    if start % SEGMENT == 0:
                        tl.store(entries + tl.cast(start // SEGMENT, tl.int64) * dim * STATE + tile, h, inside)
                prepared_next = _prepare(
                    u_next, delta_next, bias, start, steps, token, TOKENS, PAIRS, SOFTPLUS, False, SPREAD
                )
                h = _advance(
                    h, prepared, u_now, gate, y_before, B_rows, C_rows, B_tile, C_tile, y, start, steps, token, channel,
                    lane, limit, rate, skip, Y, WAY, TOKENS, PAIRS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, ADD,
                    False, SPREAD, LANES,
                )  # fmt: skip
                prepared, u_now = prepared_next, u_next
            wait(0)
            done = full
    # The rest of a sequence, or all of it where it does not lie in memory as copies need it.
    if done < steps:
        u_after = load_batch(u, done, steps, token, channel, limit, U, WAY, TOKENS, EVEN)
        delta_after = load_batch(delta, done, steps, token, channel, limit, DELTA, WAY, TOKENS, EVEN)
        gate_after, y_after = u_after, u_after
        if HAS_Z:
            gate_after = load_batch(z, done, steps, token, channel, limit, Z, WAY, TOKENS, EVEN)
        if ADD:
            y_after = load_batch(y, done, steps, token, channel, limit, Y, WAY, TOKENS, EVEN)
        B_after = fetch_rows(B, done, steps, row_token, row_state, B_TOKEN, WAY, STATE, B_CONSTANT)
        C_after = fetch_rows(C, done, steps, row_token, row_state, C_TOKEN, WAY, STATE, C_CONSTANT)
        for begin_of_batch in range(done, steps, TOKENS):
            u_here, delta_here, gate_here, y_here = u_after, delta_after, gate_after, y_after
            B_here = spread_rows(memory[0], B_after, B_CONSTANT, ROWS)
            C_here = spread_rows(memory[1], C_after, C_CONSTANT, ROWS)
            after = begin_of_batch + TOKENS
            u_after = load_batch(u, after, steps, token, channel, limit, U, WAY, TOKENS, EVEN)
            delta_after = load_batch(delta, after, steps, token, channel, limit, DELTA, WAY, TOKENS, EVEN)
            gate_after, y_after = u_after, u_after
            if HAS_Z:
                gate_after = load_batch(z, after, steps, token, channel, limit, Z, WAY, TOKENS, EVEN)
            if ADD:
                y_after = load_batch(y, after, steps, token, channel, limit, Y, WAY, TOKENS, EVEN)
            B_after = fetch_rows(B, after, steps, row_token, row_state, B_TOKEN, WAY, STATE, B_CONSTANT)
            C_after = fetch_rows(C, after, steps, row_token, row_state, C_TOKEN, WAY, STATE, C_CONSTANT)
            if SAVE:
                if begin_of_batch % SEGMENT == 0:
                    tl.store(entries + tl.cast(begin_of_batch // SEGMENT, tl.int64) * dim * STATE + tile, h, inside)
            here = _prepare(
                u_here, delta_here, bias, begin_of_batch, steps, token, TOKENS, PAIRS, SOFTPLUS, True, SPREAD
            )
            h = _advance(
                h, here, u_here, gate_here, y_here, B_here, C_here, B_tile, C_tile, y, begin_of_batch, steps, token,
                channel, lane, limit, rate, skip, Y, WAY, TOKENS, PAIRS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z,
                ADD, True, SPREAD, LANES,
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
    REVERSE: tl.constexpr, SAVE: tl.constexpr, SEGMENT: tl.constexpr, STAGED: tl.constexpr,
    ROW_BYTES: tl.constexpr, STAGES: tl.constexpr, WARPS: tl.constexpr, GLUON: tl.constexpr,
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
    t = tensors[0]
    rings = (
        ring(t[0], STAGES, TOKENS, CHANNELS, STAGED),
        ring(t[1], STAGES, TOKENS, CHANNELS, STAGED),
        ring(z, STAGES, TOKENS, CHANNELS, STAGED and HAS_Z),
        ring(y, STAGES, TOKENS, CHANNELS, STAGED and len(STRIDES) == 2),
        ring(t[3], STAGES, TOKENS, STATES, STAGED and not B_CONSTANT),
        ring(t[4], STAGES, TOKENS, STATES, STAGED and not C_CONSTANT),
    )
    _walk(
        tensors[0], z, y, cu_seqlens, memory, rings, group, origin, sequence, part, part, length, dim, chunk, chunks, 0,
        group_size, segments, strides[0], z_batch, STRIDES, 0, Z, Y, STATE, STATES, CHANNELS, TOKENS, EVEN, B_CONSTANT,
        C_CONSTANT, HAS_D, HAS_Z and len(STRIDES) == 1, HAS_BIAS, HAS_ENTERING, SOFTPLUS, PACKED, REVERSE, SAVE,
        SEGMENT, False, STAGED, ROW_BYTES, STAGES, GLUON,
    )  # fmt: skip
    if len(STRIDES) == 2:
        tl.debug_barrier()  # other lanes have stored what a lane now adds to
        _walk(
            tensors[1], z, y, cu_seqlens, memory, rings, group, origin, sequence, chunks - 1 - part, part, length, dim,
            chunk, chunks, pad, group_size, segments, strides[1], z_batch, STRIDES, 1, Z, Y, STATE, STATES, CHANNELS,
            TOKENS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, HAS_BIAS, HAS_ENTERING, SOFTPLUS, PACKED, not REVERSE,
            SAVE, SEGMENT, True, STAGED, ROW_BYTES, STAGES, GLUON,
        )  # fmt: skip
