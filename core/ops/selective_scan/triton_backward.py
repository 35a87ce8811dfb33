# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The backward pass of the selective scan as a kernel.

The forward pass has saved the states before every segment. A program takes the segments of its chunk from the last to
the first: it runs forward through the segment and keeps the state before each batch of tokens in shared memory, then
goes back batch by batch, recomputes the states within the batch and runs the gradient of the state through it:

    g_t = C_t dy_t + a_{t+1} g_{t+1},   dB_t = Σ_d g_t dt_t u_t,   dC_t = Σ_d dy_t h_t,
    d(dt_t u_t) = Σ_n g_t B_t,   dA = Σ_t g_t a_t h_{t-1} dt_t,   ddt_t += Σ_n g_t a_t h_{t-1} A.

A program takes several blocks of channels, one after the other, and adds up their sums over channels; those of all
programs are added up afterwards in a fixed order: gradients are the same bits in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import (
    arange,
    arrange,
    columns,
    columns_of_two,
    flat_layout,
    gl,
    memory_layout,
    own_sum,
    product_layout,
    read,
    rows_layout,
    rows_memory,
    sigmoid,
    slice_of,
    spread_layout,
    sum_lanes,
    sum_lanes_of_two,
    tile_layout,
    whole_layout,
    zeros,
)  # fmt: skip
from .._triton import LOG2_E, softplus
from .triton_channel_sums import add_channel_sums, channel_sums
from .triton_inputs import fetch_rows, find_chunk, first_segment, prepare, row_of, spread_rows

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _load(
    pointer, start, steps, token, channel, limit,
    STRIDE: tl.constexpr, WAY: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    mask = (start + token < steps) & (channel < limit)
    if EVEN:
        mask = start + token < steps
    return tl.load(pointer + tl.cast(start, tl.int64) * (WAY * STRIDE) + (WAY * token * STRIDE + channel), mask, 0.0)


@triton.jit
def _store(pointer, value, start, steps, token, channel, limit, STRIDE: tl.constexpr, WAY: tl.constexpr):
    place = pointer + tl.cast(start, tl.int64) * (WAY * STRIDE) + (WAY * token * STRIDE + channel)
    tl.store(place, value.to(pointer.dtype.element_ty), (start + token < steps) & (channel < limit))


@triton.jit
def _add(pointer, value, turn, mask):
    """Store what the first turn finds, add what the others do."""
    earlier = tl.load(pointer, mask & (turn > 0), 0.0).to(tl.float32)
    tl.store(pointer, (value + earlier).to(pointer.dtype.element_ty), mask)


@triton.jit
def _keep(kept, scratch, position, h, i, CHANNELS: tl.constexpr, STATES: tl.constexpr, GLUON: tl.constexpr):
    """Put away the state before the i-th batch."""
    if GLUON:
        kept.index(i).store(h)
    else:
        tl.store(scratch + i * (CHANNELS * STATES) + position, h)


@triton.jit
def _walk(
    tensors, z, grad_y, grad_z, cu_seqlens, scratch, kept, memory, group, origin, share, turn, sequence, part,
    slot, length, dim, row_stride, chunk, chunks, pad, group_size, segments, all_tokens, strides, z_stride,
    grad_y_stride,
    STRIDES: tl.constexpr, WHICH: tl.constexpr, Z: tl.constexpr, GRAD_Y: tl.constexpr, ROW: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr, HAS_LEAVING: tl.constexpr, SOFTPLUS: tl.constexpr,
    PACKED: tl.constexpr, REVERSE: tl.constexpr, SEGMENT: tl.constexpr, SPLIT: tl.constexpr, ADD: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """One chunk of a block of channels in one direction; with ``ADD`` grad_z already holds the other direction."""
    TILE: tl.constexpr = tile_layout(STATES, WARPS, GLUON)
    TILE_STATES: tl.constexpr = slice_of(TILE, 0)
    TILE_CHANNELS: tl.constexpr = slice_of(TILE, 1)
    SPREAD: tl.constexpr = spread_layout(STATES, TOKENS, WARPS, GLUON)
    SPREAD_TOKENS: tl.constexpr = slice_of(SPREAD, 0)
    SPREAD_CHANNELS: tl.constexpr = slice_of(SPREAD, 1)
    SPREAD_OF_TWO: tl.constexpr = spread_layout(STATES, 2 * TOKENS, WARPS, GLUON)
    WHOLE: tl.constexpr = whole_layout(STATES, TOKENS, WARPS, GLUON)
    WHOLE_OF_TWO: tl.constexpr = whole_layout(STATES, 2 * TOKENS, WARPS, GLUON)
    WAY: tl.constexpr = -1 if REVERSE else 1
    U: tl.constexpr = STRIDES[WHICH][0]
    DELTA: tl.constexpr = STRIDES[WHICH][1]
    B_TOKEN: tl.constexpr = STRIDES[WHICH][2]
    C_TOKEN: tl.constexpr = STRIDES[WHICH][3]
    u, delta, A, B, C, D, delta_bias, entries, entering, grad_u, grad_delta, grad_BC, shares, leaving = tensors
    u_stride, delta_stride, B_batch, B_group, C_batch, C_group = strides
    batch, begin, first, steps = find_chunk(cu_seqlens, sequence, part, length, chunk, pad, PACKED, REVERSE)
    limit = (group + 1) * group_size
    row = sequence * chunks + part
    n = arange(STATES, TILE_STATES)
    c = origin + arange(CHANNELS, TILE_CHANNELS)
    tile = c[:, None] * STATE + n[None, :]
    inside = (c < limit)[:, None] & (n < STATE)[None, :]
    rate = read(A, tile, inside, not EVEN).to(tl.float32) * LOG2_E
    g = zeros(CHANNELS, STATES, TILE)
    if HAS_ENTERING:
        g = read(entering + row * dim * STATE, tile, inside, not EVEN).to(tl.float32)
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
    u += batch * u_stride + first * U
    delta += batch * delta_stride + first * DELTA
    z += batch * z_stride + first * Z
    grad_y += batch * grad_y_stride + first * GRAD_Y
    here = batch * length + first
    grad_u += here * ROW
    grad_delta += here * ROW
    grad_z += here * ROW
    grad_BC += (tl.cast(share, tl.int64) * all_tokens + here) * (2 * STATE)
    entries += first_segment(sequence, slot, begin, chunk, segments, SEGMENT, PACKED) * dim * STATE
    position = arange(CHANNELS, TILE_CHANNELS)[:, None] * STATES + n[None, :]
    element = arange(TOKENS * 2 * STATES, flat_layout(WARPS) if GLUON else None)
    ROWS: tl.constexpr = rows_layout(STATES, TOKENS, GLUON)
    row_token, row_state = n, n
    if GLUON:
        row_token = arange(TOKENS, slice_of(ROWS, 1))[:, None]
        row_state = arange(STATES, slice_of(ROWS, 0))[None, :]
    A_sum = zeros(CHANNELS, STATES, TILE)
    B_sum, C_sum = A_sum, A_sum
    D_sum = zeros(CHANNELS, TOKENS, SPREAD)
    bias_sum = zeros(CHANNELS, TOKENS, SPREAD)

    count = tl.cdiv(steps, SEGMENT)
    for index in range(count):
        before = (count - 1 - index) * SEGMENT
        batches = tl.cdiv(tl.minimum(SEGMENT, steps - before), TOKENS)
        h = read(entries + tl.cast(before // SEGMENT, tl.int64) * dim * STATE, tile, inside, not EVEN).to(tl.float32)
        # Forward, keeping the state before each batch; a batch is prepared while the one before it advances.
        u_next = _load(u, before, steps, token, channel, limit, U, WAY, EVEN)
        delta_next = _load(delta, before, steps, token, channel, limit, DELTA, WAY, EVEN)
        dt, dt_u = prepare(
            (u_next, delta_next), bias, token < 0, TOKENS, CHANNELS, SOFTPLUS, False, WHOLE_OF_TWO, TILE_CHANNELS
        )
        u_next = _load(u, before + TOKENS, steps, token, channel, limit, U, WAY, EVEN)
        delta_next = _load(delta, before + TOKENS, steps, token, channel, limit, DELTA, WAY, EVEN)
        B_next = fetch_rows(
            B, before, steps, row_token, row_state, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, True, GLUON
        )
        for i in range(batches - 1):
            _keep(kept, scratch, position, h, i, CHANNELS, STATES, GLUON)
            start = before + i * TOKENS
            B_rows = spread_rows(memory[0], B_next, B_CONSTANT, GLUON)
            B_next = fetch_rows(
                B, start + TOKENS, steps, row_token, row_state, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, True,
                GLUON,
            )  # fmt: skip
            dt_next, dt_u_next = prepare(
                (u_next, delta_next), bias, token < 0, TOKENS, CHANNELS, SOFTPLUS, False, WHOLE_OF_TWO, TILE_CHANNELS
            )
            u_next = _load(u, start + 2 * TOKENS, steps, token, channel, limit, U, WAY, EVEN)
            delta_next = _load(delta, start + 2 * TOKENS, steps, token, channel, limit, DELTA, WAY, EVEN)
            for j in tl.static_range(TOKENS):
                new = dt_u[j][:, None] * row_of(B_rows, B_tile, j, B_CONSTANT, TILE)
                h = tl.fma(tl.exp2(dt[j][:, None] * rate), h, new)
            dt, dt_u = dt_next, dt_u_next
        _keep(kept, scratch, position, h, batches - 1, CHANNELS, STATES, GLUON)
        # Back, batch by batch.
        last = before + (batches - 1) * TOKENS
        u_next = _load(u, last, steps, token, channel, limit, U, WAY, EVEN)
        delta_next = _load(delta, last, steps, token, channel, limit, DELTA, WAY, EVEN)
        dy_next = _load(grad_y, last, steps, token, channel, limit, GRAD_Y, WAY, EVEN)
        B_next = fetch_rows(
            B, last, steps, row_token, row_state, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, True, GLUON
        )
        C_next = fetch_rows(
            C, last, steps, row_token, row_state, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, True, GLUON
        )
        gate_next = u_next
        if HAS_Z:
            gate_next = _load(z, last, steps, token, channel, limit, Z, WAY, EVEN)
        for back in range(batches):
            i = batches - 1 - back
            start = before + i * TOKENS
            valid = start + token < steps
            B_rows = spread_rows(memory[0], B_next, B_CONSTANT, GLUON)
            C_rows = spread_rows(memory[1], C_next, C_CONSTANT, GLUON)
            u_f, raw = u_next.to(tl.float32), delta_next.to(tl.float32) + bias
            dy, gate = dy_next.to(tl.float32), gate_next.to(tl.float32)
            next = tl.maximum(start - TOKENS, before)
            u_next = _load(u, next, steps, token, channel, limit, U, WAY, EVEN)
            delta_next = _load(delta, next, steps, token, channel, limit, DELTA, WAY, EVEN)
            dy_next = _load(grad_y, next, steps, token, channel, limit, GRAD_Y, WAY, EVEN)
            B_next = fetch_rows(
                B, next, steps, row_token, row_state, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, True, GLUON
            )
            C_next = fetch_rows(
                C, next, steps, row_token, row_state, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, True, GLUON
            )
            gate_next = u_next
            if HAS_Z:
                gate_next = _load(z, next, steps, token, channel, limit, Z, WAY, EVEN)
            if ADD:
                dz_other = _load(grad_z, start, steps, token, channel, limit, ROW, WAY, EVEN).to(tl.float32)
            if GLUON:
                t, state = element // (2 * STATES), element % STATES
                place = grad_BC + tl.cast(start, tl.int64) * (WAY * 2 * STATE)
                place += (WAY * 2 * t + element // STATES % 2) * STATE + state
                keep = (start + t < steps) & (state < STATE)
                if not (B_CONSTANT and C_CONSTANT):
                    earlier = tl.load(place, keep & (turn > 0), 0.0).to(tl.float32)
            if not GLUON:
                h = tl.load(scratch + i * (CHANNELS * STATES) + position)
            else:
                h = kept.index(i).load(TILE)
            dt_batch = raw
            if SOFTPLUS:
                dt_batch = softplus(raw)
            dt_batch = tl.where(valid, dt_batch, 0.0)
            dy_gated = dy
            if HAS_Z:
                gate_sigmoid = sigmoid(gate, SPREAD)
                dy_gated = dy * gate * gate_sigmoid
            dt, dt_u = columns_of_two(dt_batch, dt_batch * u_f, CHANNELS, TOKENS, WHOLE_OF_TWO, TILE_CHANNELS)
            dys = columns(arrange(dy_gated, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
            states, decays, for_y, for_u, for_dt = (h,), (), (), (), ()
            for j in tl.static_range(TOKENS):
                a = tl.exp2(dt[j][:, None] * rate)
                h = tl.fma(a, h, dt_u[j][:, None] * row_of(B_rows, B_tile, j, B_CONSTANT, TILE))
                states = states + (h,)
                decays = decays + (a,)
                if HAS_Z:
                    for_y = for_y + (own_sum(h * row_of(C_rows, C_tile, j, C_CONSTANT, TILE), CHANNELS, STATES),)
            if GLUON:
                sums = zeros(2 * WARPS * STATES, 2 * TOKENS, product_layout(WARPS))
            for j in tl.static_range(TOKENS - 1, -1, -1):
                g += dys[j][:, None] * row_of(C_rows, C_tile, j, C_CONSTANT, TILE)
                for_B = g * dt_u[j][:, None]
                by_C = dys[j][:, None] * states[j + 1]
                if B_CONSTANT:
                    B_sum += for_B
                if C_CONSTANT:
                    C_sum += by_C
                if not (B_CONSTANT and C_CONSTANT):
                    if not GLUON:
                        for_row = grad_BC + tl.cast(start + j, tl.int64) * (WAY * 2 * STATE) + n
                        keep = (n < STATE) & (start + j < steps)
                        _add(for_row, tl.sum(for_B, axis=0), turn, keep)
                        _add(for_row + STATE, tl.sum(by_C, axis=0), turn, keep)
                    else:
                        sums = add_channel_sums(sums, for_B, by_C, j, TOKENS, STATES, SPLIT, WARPS)
                for_u = (own_sum(g * row_of(B_rows, B_tile, j, B_CONSTANT, TILE), CHANNELS, STATES),) + for_u
                a = decays[j]
                q = g * (a * states[j])
                for_dt = (own_sum(q * rate, CHANNELS, STATES),) + for_dt
                A_sum += q * dt[j][:, None]
                g *= a
            if GLUON:
                if not (B_CONSTANT and C_CONSTANT):
                    both = channel_sums(sums, TOKENS, STATES, WARPS)
                    both = arrange(tl.reshape(both, (TOKENS * 2 * STATES,)), flat_layout(WARPS))
                    tl.store(place, (both + earlier).to(grad_BC.dtype.element_ty), keep)
            by_B, by_A = sum_lanes_of_two(for_u, for_dt, TOKENS, CHANNELS, SPREAD_OF_TWO, SPREAD)
            du = dt_batch * by_B
            if HAS_D:
                du += skip * dy_gated
                D_sum += dy_gated * u_f
            d_dt = by_A * LN_2 + u_f * by_B
            if SOFTPLUS:
                d_dt *= sigmoid(raw, SPREAD)
            if HAS_BIAS:
                bias_sum += tl.where(valid, d_dt, 0.0)
            if HAS_Z:
                y_batch = sum_lanes(for_y, 0, TOKENS, CHANNELS, SPREAD) + u_f * skip
                dz = dy * y_batch * gate_sigmoid * (1.0 + gate * (1.0 - gate_sigmoid))
                if ADD:
                    dz += dz_other
                _store(grad_z, dz, start, steps, token, channel, limit, ROW, WAY)
            _store(grad_u, du, start, steps, token, channel, limit, ROW, WAY)
            _store(grad_delta, d_dt, start, steps, token, channel, limit, ROW, WAY)

    # This row's shares: of D, of the bias, of A, and of B and C where they are constant.
    shares += row * row_stride
    if HAS_D:
        tl.store(shares + channel, tl.sum(D_sum, axis=1)[:, None], channel < limit)
    if HAS_BIAS:
        tl.store(shares + dim + channel, tl.sum(bias_sum, axis=1)[:, None], channel < limit)
    tl.store(shares + 2 * dim + tile, A_sum, inside)
    if B_CONSTANT:
        tl.store(shares + (2 + STATE) * dim + tile, B_sum, inside)
    if C_CONSTANT:
        tl.store(shares + (2 + 2 * STATE) * dim + tile, C_sum, inside)
    if HAS_LEAVING:
        if part == 0:
            tl.store(leaving + sequence * dim * STATE + tile, g, inside)


def scan_backward(
    tensors, strides, z, grad_y, grad_z, cu_seqlens, scratch,
    length, dim, row_stride, chunk, chunks, pad, columns_of_all, group_size, group_blocks, group_columns, turns,
    segments, all_tokens, z_stride, grad_y_stride,
    STRIDES: tl.constexpr, Z: tl.constexpr, GRAD_Y: tl.constexpr, ROW: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr, HAS_LEAVING: tl.constexpr, SOFTPLUS: tl.constexpr,
    PACKED: tl.constexpr, REVERSE: tl.constexpr, SEGMENT: tl.constexpr, SPLIT: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """Gradients of the inputs, and this program's share of those of A, B, C, D and the bias.

    A program takes a column of ``turns`` blocks of channels, one after the other, and adds up their gradients of B and
    C. ``tensors`` and the strides hold those of one direction or of both, as in the forward pass.
    """
    program = tl.program_id(0)
    column, row = program % columns_of_all, program // columns_of_all
    group = column // group_columns
    first_block = column % group_columns * turns
    origin = group * group_size + first_block * CHANNELS
    count = tl.minimum(turns, group_blocks - first_block)
    sequence, part = (row // chunks).to(tl.int64), row % chunks
    BATCHES: tl.constexpr = SEGMENT // TOKENS
    kept = scratch
    if GLUON:
        kept = gl.allocate_shared_memory(tl.float32, [BATCHES, CHANNELS, STATES], memory_layout())
    else:
        scratch += program.to(tl.int64) * (BATCHES * CHANNELS * STATES)
    memory = (rows_memory(TOKENS, STATES, z, GLUON), rows_memory(TOKENS, STATES, z, GLUON))  # of B and C
    for turn in range(count):
        _walk(
            tensors[0], z, grad_y, grad_z, cu_seqlens, scratch, kept, memory, group,
            origin + turn * CHANNELS, column, turn, sequence, part, part, length, dim, row_stride, chunk, chunks, 0,
            group_size, segments, all_tokens, strides[0],
            z_stride, grad_y_stride, STRIDES, 0, Z, GRAD_Y, ROW, STATE, STATES, CHANNELS, TOKENS, EVEN, B_CONSTANT,
            C_CONSTANT, HAS_D, HAS_Z, HAS_BIAS, HAS_ENTERING, HAS_LEAVING, SOFTPLUS, PACKED, REVERSE, SEGMENT, SPLIT,
            False, WARPS, GLUON,
        )  # fmt: skip
    if len(STRIDES) == 2:
        tl.debug_barrier()  # other lanes have stored what a lane now adds to
        for turn in range(count):
            _walk(
                tensors[1], z, grad_y, grad_z, cu_seqlens, scratch, kept, memory, group,
                origin + turn * CHANNELS, column, turn, sequence, chunks - 1 - part, part, length, dim, row_stride,
                chunk, chunks, pad, group_size, segments,
                all_tokens, strides[1], z_stride, grad_y_stride, STRIDES, 1, Z, GRAD_Y, ROW, STATE, STATES, CHANNELS,
                TOKENS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, HAS_BIAS, HAS_ENTERING, HAS_LEAVING, SOFTPLUS,
                PACKED, not REVERSE, SEGMENT, SPLIT, HAS_Z, WARPS, GLUON,
            )  # fmt: skip
