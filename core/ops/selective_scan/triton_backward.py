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
    flat_layout,
    four_sums,
    gl,
    memory_layout,
    product_layout,
    read,
    rows_layout,
    rows_memory,
    sigmoid,
    slice_of,
    state_layout,
    tile_layout,
    widened,
    zeros,
)  # fmt: skip
from .._triton import LOG2_E, softplus
from .triton_channel_sums import add_channel_sums, channel_sums
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

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _start_of(k, steps, SEGMENT: tl.constexpr, TOKENS: tl.constexpr):
    """The first step of the k-th batch that a walk needs: all of the last segment forward, then backward, and so on."""
    count = tl.maximum(tl.cdiv(steps, SEGMENT), 1)
    short = tl.cdiv(steps - (count - 1) * SEGMENT, TOKENS)  # batches of the last segment
    whole: tl.constexpr = SEGMENT // TOKENS
    k = tl.minimum(k, tl.maximum(2 * (short + (count - 1) * whole) - 1, 0))
    later = tl.maximum(k - 2 * short, 0)
    in_last = k < 2 * short
    batches = tl.where(in_last, short, whole)
    of_segment = tl.where(in_last, k, later % (2 * whole))
    segment = tl.where(in_last, count - 1, count - 2 - later // (2 * whole))
    return segment * SEGMENT + tl.minimum(of_segment, 2 * batches - 1 - of_segment) * TOKENS


@triton.jit
def _go_on(
    rings, sources, k, steps,
    STAGES: tl.constexpr, STEPS: tl.constexpr, WIDTHS: tl.constexpr, WANTED: tl.constexpr, SEGMENT: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    """Wait for the k-th batch, and send for the one that takes the place of the batch before it."""
    wait(STAGES - 2)
    ahead = k + STAGES - 1
    send(rings, sources, ahead, _start_of(ahead, steps, SEGMENT, TOKENS), steps, STAGES, STEPS, WIDTHS, WANTED, True)


@triton.jit
def _store(pointer, value, start, steps, token, channel, limit, STRIDE: tl.constexpr, WAY: tl.constexpr):
    place = pointer + tl.cast(start, tl.int64) * (WAY * STRIDE)
    tl.store(place, value.to(pointer.dtype.element_ty), (start + token < steps) & (channel < limit))


@triton.jit
def _add(pointer, value, turn, mask):
    """Store what the first turn finds, add what the others do."""
    earlier = tl.load(pointer, mask & (turn > 0), 0.0).to(tl.float32)
    tl.store(pointer, (value + earlier).to(pointer.dtype.element_ty), mask)


@triton.jit
def _flat(x, CHANNELS: tl.constexpr, STATES: tl.constexpr, TILE: tl.constexpr):
    """(channels, 4, states / 4) as the tile (channels, states); nothing moves."""
    return arrange(tl.reshape(x, (CHANNELS, STATES)), TILE)


@triton.jit
def _keep(
    kept, scratch, position, h, i, CHANNELS: tl.constexpr, STATES: tl.constexpr, TILE: tl.constexpr, GLUON: tl.constexpr
):
    """Put away the state before the i-th batch."""
    if GLUON:
        kept.index(i).store(_flat(h, CHANNELS, STATES, TILE))
    else:
        tl.store(scratch + i * (CHANNELS * STATES) + position, h)


@triton.jit
def _walk(
    tensors, z, grad_y, grad_z, cu_seqlens, scratch, kept, memory, rings, group, origin, share, turn, sequence, part,
    slot, length, dim, row_stride, chunk, chunks, pad, group_size, segments, all_tokens, strides, z_stride,
    grad_y_stride,
    STRIDES: tl.constexpr, WHICH: tl.constexpr, Z: tl.constexpr, GRAD_Y: tl.constexpr, ROW: tl.constexpr,
    STATE: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr, HAS_LEAVING: tl.constexpr, SOFTPLUS: tl.constexpr,
    PACKED: tl.constexpr, REVERSE: tl.constexpr, SEGMENT: tl.constexpr, SPLIT: tl.constexpr, ADD: tl.constexpr,
    STAGED: tl.constexpr, ROW_BYTES: tl.constexpr, STAGES: tl.constexpr, WARPS: tl.constexpr, GLUON: tl.constexpr,
):  # fmt: skip
    """One chunk of a block of channels in one direction; with ``ADD`` grad_z already holds the other direction."""
    LANES: tl.constexpr = state_layout(STATES, CHANNELS, GLUON)
    SPREAD: tl.constexpr = slice_of(LANES, 2)
    TILE: tl.constexpr = tile_layout(STATES, WARPS, GLUON)
    ROWS: tl.constexpr = rows_layout(STATES, TOKENS, GLUON)
    PAIRS: tl.constexpr = CHANNELS == 16
    WAY: tl.constexpr = -1 if REVERSE else 1
    U: tl.constexpr = STRIDES[WHICH][0]
    DELTA: tl.constexpr = STRIDES[WHICH][1]
    B_TOKEN: tl.constexpr = STRIDES[WHICH][2]
    C_TOKEN: tl.constexpr = STRIDES[WHICH][3]
    u, delta, A, B, C, D, delta_bias, entries, entering, grad_u, grad_delta, grad_BC, shares, leaving = tensors
    u_stride, delta_stride, B_batch, B_group, C_batch, C_group = strides
    batch, begin, first, steps = find_chunk(cu_seqlens, sequence, part, length, chunk, pad, PACKED, REVERSE)
    limit = (group + 1) * group_size
    share_row = sequence * chunks + part
    own = origin + arange(CHANNELS, slice_of(SPREAD, 1))
    channel = own[:, None]
    token = arange(4, slice_of(SPREAD, 0))[None, :]
    lane = token + 0 * channel
    n = state_of(STATES // 4, LANES)
    c = channel[:, :, None]
    tile = c * STATE + n
    inside = (c < limit) & (n < STATE)
    rate = read(A, tile, inside, not EVEN).to(tl.float32) * LOG2_E
    g = rate * 0.0
    A_sum = rate * 0.0
    B_sum, C_sum = A_sum, A_sum
    if HAS_ENTERING:
        g = read(entering + share_row * dim * STATE, tile, inside, not EVEN).to(tl.float32)
    bias, skip = 0.0, 0.0
    if HAS_BIAS:
        bias = read(delta_bias, channel, channel < limit, not EVEN).to(tl.float32)
    if HAS_D:
        skip = read(D, channel, channel < limit, not EVEN).to(tl.float32)
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
    sources = (
        source(u + origin, WAY * U, TOKENS, CHANNELS, 16, STAGED),
        source(delta + origin, WAY * DELTA, TOKENS, CHANNELS, 16, STAGED),
        source(grad_y + origin, WAY * GRAD_Y, TOKENS, CHANNELS, 16, STAGED),
        source(z + origin, WAY * Z, TOKENS, CHANNELS, 16, STAGED and HAS_Z),
        source(B, WAY * B_TOKEN, TOKENS, STATES, ROW_BYTES, STAGED and not B_CONSTANT),
        source(C, WAY * C_TOKEN, TOKENS, STATES, ROW_BYTES, STAGED and not C_CONSTANT),
    )
    row_token = arange(TOKENS, slice_of(slice_of(ROWS, 2), 1))[:, None][:, :, None]
    row_state = state_of(STATES // 4, ROWS)
    u = u + (WAY * U * token + channel)
    delta = delta + (WAY * DELTA * token + channel)
    z = z + (WAY * Z * token + channel)
    grad_y = grad_y + (WAY * GRAD_Y * token + channel)
    if not B_CONSTANT:
        B = B + (WAY * B_TOKEN * row_token + row_state)
    if not C_CONSTANT:
        C = C + (WAY * C_TOKEN * row_token + row_state)
    here = batch * length + first
    place_out = here * ROW + (WAY * ROW * token + channel)
    grad_u = grad_u + place_out
    grad_delta = grad_delta + place_out
    grad_z = grad_z + place_out
    grad_BC += (tl.cast(share, tl.int64) * all_tokens + here) * (2 * STATE)
    entries += first_segment(sequence, slot, begin, chunk, segments, SEGMENT, PACKED) * dim * STATE
    position = (c - origin) * STATES + n
    element = arange(TOKENS * 2 * STATES, flat_layout(WARPS) if GLUON else None)
    D_sum = 0.0 * lane
    bias_sum = 0.0 * lane

    WANTED: tl.constexpr = (True, True, True, HAS_Z, not B_CONSTANT, not C_CONSTANT)
    STEPS: tl.constexpr = (WAY * U, WAY * DELTA, WAY * GRAD_Y, WAY * Z, WAY * B_TOKEN, WAY * C_TOKEN)
    WIDTHS: tl.constexpr = (16, 16, 16, 16, ROW_BYTES, ROW_BYTES)
    count = tl.cdiv(steps, SEGMENT)
    k = 0 * steps  # counts batches in the order in which they are needed
    if STAGED:
        for stage in tl.static_range(STAGES - 1):
            start_of_stage = _start_of(k + stage, steps, SEGMENT, TOKENS)
            send(rings, sources, stage, start_of_stage, steps, STAGES, STEPS, WIDTHS, WANTED, True)
    for index in range(count):
        before = (count - 1 - index) * SEGMENT
        batches = tl.cdiv(tl.minimum(SEGMENT, steps - before), TOKENS)
        h = read(entries + tl.cast(before // SEGMENT, tl.int64) * dim * STATE, tile, inside, not EVEN).to(tl.float32)
        # Forward, keeping the state before each batch; a batch is prepared while the one before it advances.
        if STAGED:
            _go_on(rings, sources, k, steps, STAGES, STEPS, WIDTHS, WANTED, SEGMENT, TOKENS)
            u_raw = receive(rings[0], k, STAGES, TOKENS, SPREAD)
            delta_raw = receive(rings[1], k, STAGES, TOKENS, SPREAD)
        else:
            u_raw = load_batch(u, before, steps, token, channel, limit, U, WAY, TOKENS, EVEN)
            delta_raw = load_batch(delta, before, steps, token, channel, limit, DELTA, WAY, TOKENS, EVEN)
        dt = step_sizes(delta_raw[0], bias, before + token < steps, PAIRS, SOFTPLUS, True, SPREAD)
        dt_u = dt * widened(u_raw[0], PAIRS, SPREAD)
        for i in range(batches - 1):
            _keep(kept, scratch, position, h, i, CHANNELS, STATES, TILE, GLUON)
            start = before + i * TOKENS
            next = start + TOKENS
            if STAGED:
                B_raw = receive_rows(rings[4], k, row_token, STAGES, TOKENS, STATES, not B_CONSTANT, ROWS)
                _go_on(rings, sources, k + 1, steps, STAGES, STEPS, WIDTHS, WANTED, SEGMENT, TOKENS)
                u_raw = receive(rings[0], k + 1, STAGES, TOKENS, SPREAD)
                delta_raw = receive(rings[1], k + 1, STAGES, TOKENS, SPREAD)
            else:
                B_raw = fetch_rows(B, start, steps, row_token, row_state, B_TOKEN, WAY, STATE, B_CONSTANT)
                u_raw = load_batch(u, next, steps, token, channel, limit, U, WAY, TOKENS, EVEN)
                delta_raw = load_batch(delta, next, steps, token, channel, limit, DELTA, WAY, TOKENS, EVEN)
            k += 1
            B_rows = spread_rows(memory[0], B_raw, B_CONSTANT, ROWS)
            dt_next = step_sizes(delta_raw[0], bias, next + token < steps, PAIRS, SOFTPLUS, True, SPREAD)
            dt_u_next = dt_next * widened(u_raw[0], PAIRS, SPREAD)
            for j in tl.static_range(TOKENS):
                new = of_token((dt_u,), lane, j, SPREAD) * row_of(B_rows, B_tile, j, TOKENS, B_CONSTANT, LANES)
                h = tl.fma(tl.exp2(of_token((dt,), lane, j, SPREAD) * rate), h, new)
            dt, dt_u = dt_next, dt_u_next
        _keep(kept, scratch, position, h, batches - 1, CHANNELS, STATES, TILE, GLUON)
        k += 1
        # Back, batch by batch.
        for back in range(batches):
            i = batches - 1 - back
            start = before + i * TOKENS
            valid = start + token < steps
            if STAGED:
                _go_on(rings, sources, k, steps, STAGES, STEPS, WIDTHS, WANTED, SEGMENT, TOKENS)
                u_raw = receive(rings[0], k, STAGES, TOKENS, SPREAD)
                delta_raw = receive(rings[1], k, STAGES, TOKENS, SPREAD)
                dy_raw, gate_raw = receive(rings[2], k, STAGES, TOKENS, SPREAD), u_raw
                if HAS_Z:
                    gate_raw = receive(rings[3], k, STAGES, TOKENS, SPREAD)
                B_raw = receive_rows(rings[4], k, row_token, STAGES, TOKENS, STATES, not B_CONSTANT, ROWS)
                C_raw = receive_rows(rings[5], k, row_token, STAGES, TOKENS, STATES, not C_CONSTANT, ROWS)
            else:
                u_raw = load_batch(u, start, steps, token, channel, limit, U, WAY, TOKENS, EVEN)
                delta_raw = load_batch(delta, start, steps, token, channel, limit, DELTA, WAY, TOKENS, EVEN)
                dy_raw = load_batch(grad_y, start, steps, token, channel, limit, GRAD_Y, WAY, TOKENS, EVEN)
                gate_raw = u_raw
                if HAS_Z:
                    gate_raw = load_batch(z, start, steps, token, channel, limit, Z, WAY, TOKENS, EVEN)
                B_raw = fetch_rows(B, start, steps, row_token, row_state, B_TOKEN, WAY, STATE, B_CONSTANT)
                C_raw = fetch_rows(C, start, steps, row_token, row_state, C_TOKEN, WAY, STATE, C_CONSTANT)
            k += 1
            B_rows = spread_rows(memory[0], B_raw, B_CONSTANT, ROWS)
            C_rows = spread_rows(memory[1], C_raw, C_CONSTANT, ROWS)
            u_f, raw = widened(u_raw[0], PAIRS, SPREAD), widened(delta_raw[0], PAIRS, SPREAD) + bias
            dy, gate = widened(dy_raw[0], PAIRS, SPREAD), widened(gate_raw[0], PAIRS, SPREAD)
            if ADD:
                dz_other = load_batch(grad_z, start, steps, token, channel, limit, ROW, WAY, TOKENS, EVEN)
                dz_other = widened(dz_other[0], PAIRS, SPREAD)
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
                h = arrange(tl.reshape(kept.index(i).load(TILE), (CHANNELS, 4, STATES // 4)), LANES)
            dt = raw
            if SOFTPLUS:
                dt = softplus(raw)
            dt = tl.where(valid, dt, 0.0)
            dt_u = dt * u_f
            dy_gated = dy
            if HAS_Z:
                gate_sigmoid = sigmoid(gate, SPREAD)
                dy_gated = dy * gate * gate_sigmoid
            states, decays, for_y, for_u, for_dt = (h,), (), (), (), ()
            for j in tl.static_range(TOKENS):
                a = tl.exp2(of_token((dt,), lane, j, SPREAD) * rate)
                new = of_token((dt_u,), lane, j, SPREAD) * row_of(B_rows, B_tile, j, TOKENS, B_CONSTANT, LANES)
                h = tl.fma(a, h, new)
                states = states + (h,)
                decays = decays + (a,)
                if HAS_Z:
                    for_y = for_y + (tl.sum(h * row_of(C_rows, C_tile, j, TOKENS, C_CONSTANT, LANES), axis=2),)
            if GLUON:
                sums = zeros(2 * WARPS * STATES, 2 * TOKENS, product_layout(WARPS))
            for j in tl.static_range(TOKENS - 1, -1, -1):
                dt_j, dy_j = of_token((dt,), lane, j, SPREAD), of_token((dy_gated,), lane, j, SPREAD)
                g += dy_j * row_of(C_rows, C_tile, j, TOKENS, C_CONSTANT, LANES)
                for_B = g * of_token((dt_u,), lane, j, SPREAD)
                by_C = dy_j * states[j + 1]
                if B_CONSTANT:
                    B_sum += for_B
                if C_CONSTANT:
                    C_sum += by_C
                if not (B_CONSTANT and C_CONSTANT):
                    if not GLUON:
                        for_row = grad_BC + tl.cast(start + j, tl.int64) * (WAY * 2 * STATE) + n
                        row_inside = (n < STATE) & (start + j < steps)
                        _add(for_row, tl.sum(for_B, axis=0)[None, :, :], turn, row_inside)
                        _add(for_row + STATE, tl.sum(by_C, axis=0)[None, :, :], turn, row_inside)
                    else:
                        sums = add_channel_sums(
                            sums, _flat(for_B, CHANNELS, STATES, TILE), _flat(by_C, CHANNELS, STATES, TILE), j, TOKENS,
                            STATES, SPLIT, WARPS,
                        )  # fmt: skip
                for_u = (tl.sum(g * row_of(B_rows, B_tile, j, TOKENS, B_CONSTANT, LANES), axis=2),) + for_u
                g *= decays[j]
                q = g * states[j]
                for_dt = (tl.sum(q * rate, axis=2),) + for_dt
                A_sum += q * dt_j
            if GLUON:
                if not (B_CONSTANT and C_CONSTANT):
                    both = channel_sums(sums, TOKENS, STATES, WARPS)
                    both = arrange(tl.reshape(both, (TOKENS * 2 * STATES,)), flat_layout(WARPS))
                    tl.store(place, (both + earlier).to(grad_BC.dtype.element_ty), keep)
            by_B, by_A = four_sums(for_u, 0, lane, SPREAD), four_sums(for_dt, 0, lane, SPREAD)
            du = dt * by_B
            if HAS_D:
                du += skip * dy_gated
                D_sum += dy_gated * u_f
            d_dt = by_A * LN_2 + u_f * by_B
            if SOFTPLUS:
                d_dt *= sigmoid(raw, SPREAD)
            if HAS_BIAS:
                bias_sum += tl.where(valid, d_dt, 0.0)
            if HAS_Z:
                y_batch = four_sums(for_y, 0, lane, SPREAD) + u_f * skip
                dz = dy * y_batch * gate_sigmoid * (1.0 + gate * (1.0 - gate_sigmoid))
                if ADD:
                    dz += dz_other
                _store(grad_z, dz, start, steps, token, channel, limit, ROW, WAY)
            _store(grad_u, du, start, steps, token, channel, limit, ROW, WAY)
            _store(grad_delta, d_dt, start, steps, token, channel, limit, ROW, WAY)
    if STAGED:
        wait(0)

    # This row's shares: of D, of the bias, of A, and of B and C where they are constant.
    shares += share_row * row_stride
    if HAS_D:
        tl.store(shares + own, tl.sum(D_sum, axis=1), own < limit)
    if HAS_BIAS:
        tl.store(shares + dim + own, tl.sum(bias_sum, axis=1), own < limit)
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
    STAGED: tl.constexpr, ROW_BYTES: tl.constexpr, STAGES: tl.constexpr, WARPS: tl.constexpr, GLUON: tl.constexpr,
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
    t = tensors[0]
    rings = (
        ring(t[0], STAGES, TOKENS, CHANNELS, STAGED),
        ring(t[1], STAGES, TOKENS, CHANNELS, STAGED),
        ring(grad_y, STAGES, TOKENS, CHANNELS, STAGED),
        ring(z, STAGES, TOKENS, CHANNELS, STAGED and HAS_Z),
        ring(t[3], STAGES, TOKENS, STATES, STAGED and not B_CONSTANT),
        ring(t[4], STAGES, TOKENS, STATES, STAGED and not C_CONSTANT),
    )
    for turn in range(count):
        _walk(
            tensors[0], z, grad_y, grad_z, cu_seqlens, scratch, kept, memory, rings, group,
            origin + turn * CHANNELS, column, turn, sequence, part, part, length, dim, row_stride, chunk, chunks, 0,
            group_size, segments, all_tokens, strides[0],
            z_stride, grad_y_stride, STRIDES, 0, Z, GRAD_Y, ROW, STATE, STATES, CHANNELS, TOKENS, EVEN, B_CONSTANT,
            C_CONSTANT, HAS_D, HAS_Z, HAS_BIAS, HAS_ENTERING, HAS_LEAVING, SOFTPLUS, PACKED, REVERSE, SEGMENT, SPLIT,
            False, STAGED, ROW_BYTES, STAGES, WARPS, GLUON,
        )  # fmt: skip
    if len(STRIDES) == 2:
        tl.debug_barrier()  # other lanes have stored what a lane now adds to
        for turn in range(count):
            _walk(
                tensors[1], z, grad_y, grad_z, cu_seqlens, scratch, kept, memory, rings, group,
                origin + turn * CHANNELS, column, turn, sequence, chunks - 1 - part, part, length, dim, row_stride,
                chunk, chunks, pad, group_size, segments,
                all_tokens, strides[1], z_stride, grad_y_stride, STRIDES, 1, Z, GRAD_Y, ROW, STATE, STATES, CHANNELS,
                TOKENS, EVEN, B_CONSTANT, C_CONSTANT, HAS_D, HAS_Z, HAS_BIAS, HAS_ENTERING, HAS_LEAVING, SOFTPLUS,
                PACKED, not REVERSE, SEGMENT, SPLIT, HAS_Z, STAGED, ROW_BYTES, STAGES, WARPS, GLUON,
            )  # fmt: skip
