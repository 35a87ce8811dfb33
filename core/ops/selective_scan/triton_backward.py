# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The backward pass of the selective scan as a kernel.

The forward pass has saved the states before every segment. A program takes the segments of its chunk from the last to
the first: it runs forward through the segment and keeps the state before each batch of tokens in shared memory, then
goes back batch by batch, recomputes the states within the batch and runs the gradient of the state through it:

    g_t = C_t dy_t + a_{t+1} g_{t+1},   dB_t = Σ_d g_t dt_t u_t,   dC_t = Σ_d dy_t h_t,
    d(dt_t u_t) = Σ_n g_t B_t,   dA = Σ_t g_t a_t h_{t-1} dt_t,   ddt_t += Σ_n g_t a_t h_{t-1} A.

The sums over channels are the expensive part: as a matrix product with ones they take the tensor cores (in float32 as
two products of numbers that TF32 holds exactly, or nearly so). Every program writes its own sums, which are added up
afterwards in a fixed order: gradients are the same bits in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import (
    arange,
    arrange,
    columns,
    flat_layout,
    gl,
    memory_layout,
    mma_v2,
    operand_layout,
    own_sum,
    product_layout,
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
from .triton_forward import as_tile, find_chunk, load_rows, step_sizes

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _selector(j: tl.constexpr, TOKENS: tl.constexpr, WARPS: tl.constexpr):
    """(16, 8) that adds the first 8 rows into column j and the other 8 into column TOKENS + j."""
    k = arange(16, slice_of(operand_layout(1, WARPS), 1))[:, None]
    column = arange(2 * TOKENS, slice_of(operand_layout(1, WARPS), 0))[None, :]
    return tl.where(column == j + k // 8 * TOKENS, 1.0, 0.0)


@triton.jit
def _as_left(x_B, x_C, STATES: tl.constexpr, WARPS: tl.constexpr):
    """Two tiles (channels, states) as one matrix of rows (state, eighth channel) and columns (tile, other channels).

    The order is that in which the lanes hold them, so nothing moves.
    """
    x = tl.reshape(tl.join(x_B, x_C), (WARPS, 2, 4, 2, 4, STATES // 8, 2, 2))  # warp, c3, c2 c1, c0, n, n, n0, tile
    x = tl.permute(x, (5, 0, 6, 4, 1, 7, 3, 2))
    return arrange(tl.reshape(x, (2 * STATES * WARPS, 16)), operand_layout(0, WARPS))


@triton.jit
def _add_channel_sums(sums, x_B, x_C, j: tl.constexpr, TOKENS: tl.constexpr, STATES: tl.constexpr,
                      SPLIT: tl.constexpr, WARPS: tl.constexpr):  # fmt: skip
    """Add the sums over channels of two tiles into columns j and TOKENS + j."""
    left = _as_left(x_B, x_C, STATES, WARPS)
    right = _selector(j, TOKENS, WARPS)
    if SPLIT:
        head = (left.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)  # the bits that TF32 keeps
        sums = mma_v2(left - head, right, sums, input_precision="tf32")
        left = head
    return mma_v2(left, right, sums, input_precision="tf32")


@triton.jit
def _channel_sums(sums, TOKENS: tl.constexpr, STATES: tl.constexpr, WARPS: tl.constexpr):
    """(tokens, 2, states) from the accumulator: add up warps and the eighth channels."""
    x = tl.reshape(sums, (STATES // 8, WARPS, 2, 4, 2, 2, TOKENS))  # n, warp, n0, n, c3, tile, token
    x = tl.sum(tl.sum(x, axis=4), axis=1)  # n, n0, n, tile, token
    return tl.reshape(tl.permute(x, (4, 3, 2, 0, 1)), (TOKENS, 2, STATES))


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


def scan_backward(
    u, delta, A, B, C, D, z, delta_bias, entries, grad_y, entering, cu_seqlens, scratch,
    grad_u, grad_delta, grad_z, grad_BC, shares, leaving,
    length, dim, row_stride, chunk, chunks, channel_blocks, group_size, group_blocks, segments, all_tokens,
    u_stride, delta_stride, z_stride, B_batch, B_group, C_batch, C_group, grad_y_stride,
    U: tl.constexpr, DELTA: tl.constexpr, Z: tl.constexpr, B_TOKEN: tl.constexpr, C_TOKEN: tl.constexpr,
    GRAD_Y: tl.constexpr, ROW: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr, SOFTPLUS: tl.constexpr, PACKED: tl.constexpr,
    REVERSE: tl.constexpr, SEGMENT: tl.constexpr, SPLIT: tl.constexpr,
    WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """Gradients of the inputs, and this program's share of those of A, B, C, D and the bias."""
    TILE: tl.constexpr = tile_layout(STATES, WARPS, GLUON)
    TILE_STATES: tl.constexpr = slice_of(TILE, 0)
    TILE_CHANNELS: tl.constexpr = slice_of(TILE, 1)
    SPREAD: tl.constexpr = spread_layout(STATES, TOKENS, WARPS, GLUON)
    SPREAD_TOKENS: tl.constexpr = slice_of(SPREAD, 0)
    SPREAD_CHANNELS: tl.constexpr = slice_of(SPREAD, 1)
    WHOLE: tl.constexpr = whole_layout(STATES, TOKENS, WARPS, GLUON)
    block, group, origin, limit, sequence, part, batch, begin, first, steps = find_chunk(
        cu_seqlens, length, chunk, chunks, 0, group_size, group_blocks, channel_blocks, CHANNELS, PACKED, REVERSE
    )
    WAY: tl.constexpr = -1 if REVERSE else 1
    BATCHES: tl.constexpr = SEGMENT // TOKENS
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
    grad_BC += (tl.cast(block, tl.int64) * all_tokens + here) * (2 * STATE)
    if PACKED:
        segment = begin // SEGMENT + sequence
    else:
        segment = sequence * segments
    entries += (segment + tl.cast(part, tl.int64) * (chunk // SEGMENT)) * dim * STATE
    if not GLUON:
        scratch += tl.program_id(0).to(tl.int64) * (BATCHES * CHANNELS * STATES)
        position = tl.arange(0, CHANNELS)[:, None] * STATES + n[None, :]
    else:
        kept = gl.allocate_shared_memory(tl.float32, [BATCHES, CHANNELS, STATES], memory_layout())
    A_sum = zeros(CHANNELS, STATES, TILE)
    B_sum, C_sum = A_sum, A_sum
    D_sum = zeros(CHANNELS, TOKENS, SPREAD)
    bias_sum = zeros(CHANNELS, TOKENS, SPREAD)

    count = tl.cdiv(steps, SEGMENT)
    for index in range(count):
        before = (count - 1 - index) * SEGMENT
        batches = tl.cdiv(tl.minimum(SEGMENT, steps - before), TOKENS)
        h = read(entries + tl.cast(before // SEGMENT, tl.int64) * dim * STATE, tile, inside, not EVEN)
        # Forward, keeping the state before each batch.
        u_next = _load(u, before, steps, token, channel, limit, U, WAY, EVEN)
        delta_next = _load(delta, before, steps, token, channel, limit, DELTA, WAY, EVEN)
        for i in range(batches):
            if not GLUON:
                tl.store(scratch + i * (CHANNELS * STATES) + position, h)
            else:
                kept.index(i).store(h)
            start = before + i * TOKENS
            if i < batches - 1:
                B_rows = load_rows(B, B_tile, n, start, steps, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, False)
                u_batch, delta_batch = u_next.to(tl.float32), delta_next
                u_next = _load(u, start + TOKENS, steps, token, channel, limit, U, WAY, EVEN)
                delta_next = _load(delta, start + TOKENS, steps, token, channel, limit, DELTA, WAY, EVEN)
                dt_batch = step_sizes(delta_batch, bias, token < 0, SOFTPLUS, False)
                dt = columns(arrange(dt_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
                dt_u = columns(arrange(dt_batch * u_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
                for j in tl.static_range(TOKENS):
                    new = dt_u[j][:, None] * as_tile(B_rows[j], B_CONSTANT)
                    h = tl.fma(tl.exp2(dt[j][:, None] * rate), h, new)
        # Back, batch by batch.
        last = before + (batches - 1) * TOKENS
        u_next = _load(u, last, steps, token, channel, limit, U, WAY, EVEN)
        delta_next = _load(delta, last, steps, token, channel, limit, DELTA, WAY, EVEN)
        dy_next = _load(grad_y, last, steps, token, channel, limit, GRAD_Y, WAY, EVEN)
        gate_next = u_next
        if HAS_Z:
            gate_next = _load(z, last, steps, token, channel, limit, Z, WAY, EVEN)
        for back in range(batches):
            i = batches - 1 - back
            start = before + i * TOKENS
            valid = start + token < steps
            B_rows = load_rows(B, B_tile, n, start, steps, B_TOKEN, WAY, TOKENS, STATE, EVEN, B_CONSTANT, True)
            C_rows = load_rows(C, C_tile, n, start, steps, C_TOKEN, WAY, TOKENS, STATE, EVEN, C_CONSTANT, True)
            u_f, raw = u_next.to(tl.float32), delta_next.to(tl.float32) + bias
            dy, gate = dy_next.to(tl.float32), gate_next.to(tl.float32)
            next = tl.maximum(start - TOKENS, before)
            u_next = _load(u, next, steps, token, channel, limit, U, WAY, EVEN)
            delta_next = _load(delta, next, steps, token, channel, limit, DELTA, WAY, EVEN)
            dy_next = _load(grad_y, next, steps, token, channel, limit, GRAD_Y, WAY, EVEN)
            gate_next = u_next
            if HAS_Z:
                gate_next = _load(z, next, steps, token, channel, limit, Z, WAY, EVEN)
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
            dt = columns(arrange(dt_batch, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
            dt_u = columns(arrange(dt_batch * u_f, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
            dys = columns(arrange(dy_gated, WHOLE), CHANNELS, TOKENS, TILE_CHANNELS)
            decays, decayed, by_C, for_y, for_u, for_dt = (), (), (), (), (), ()
            for j in tl.static_range(TOKENS):
                a = tl.exp2(dt[j][:, None] * rate)
                p = a * h
                h = p + dt_u[j][:, None] * as_tile(B_rows[j], B_CONSTANT)
                decays = decays + (a,)
                decayed = decayed + (p,)
                by_C = by_C + (dys[j][:, None] * h,)
                if HAS_Z:
                    for_y = for_y + (own_sum(h * as_tile(C_rows[j], C_CONSTANT), CHANNELS, STATES),)
            if GLUON:
                sums = zeros(2 * WARPS * STATES, 2 * TOKENS, product_layout(WARPS))
            for j in tl.static_range(TOKENS - 1, -1, -1):
                g += dys[j][:, None] * as_tile(C_rows[j], C_CONSTANT)
                for_B = g * dt_u[j][:, None]
                if B_CONSTANT:
                    B_sum += for_B
                if C_CONSTANT:
                    C_sum += by_C[j]
                if not (B_CONSTANT and C_CONSTANT):
                    if not GLUON:
                        for_row = grad_BC + tl.cast(start + j, tl.int64) * (WAY * 2 * STATE) + n
                        keep = (n < STATE) & (start + j < steps)
                        tl.store(for_row, tl.sum(for_B, axis=0).to(grad_BC.dtype.element_ty), keep)
                        tl.store(for_row + STATE, tl.sum(by_C[j], axis=0).to(grad_BC.dtype.element_ty), keep)
                    else:
                        sums = _add_channel_sums(sums, for_B, by_C[j], j, TOKENS, STATES, SPLIT, WARPS)
                for_u = (own_sum(g * as_tile(B_rows[j], B_CONSTANT), CHANNELS, STATES),) + for_u
                q = g * decayed[j]
                for_dt = (own_sum(q * rate, CHANNELS, STATES),) + for_dt
                A_sum += q * dt[j][:, None]
                g *= decays[j]
            if GLUON:
                if not (B_CONSTANT and C_CONSTANT):
                    both = _channel_sums(sums, TOKENS, STATES, WARPS)
                    both = arrange(tl.reshape(both, (TOKENS * 2 * STATES,)), flat_layout(WARPS))
                    element = arange(TOKENS * 2 * STATES, flat_layout(WARPS))
                    t, state = element // (2 * STATES), element % STATES
                    offset = (WAY * 2 * t + element // STATES % 2) * STATE + state
                    place = grad_BC + tl.cast(start, tl.int64) * (WAY * 2 * STATE) + offset
                    tl.store(place, both.to(grad_BC.dtype.element_ty), (start + t < steps) & (state < STATE))
            by_B = sum_lanes(for_u, 0, TOKENS, CHANNELS, SPREAD)
            by_A = sum_lanes(for_dt, 0, TOKENS, CHANNELS, SPREAD)
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
    if part == 0:
        tl.store(leaving + sequence * dim * STATE + tile, g, inside)
