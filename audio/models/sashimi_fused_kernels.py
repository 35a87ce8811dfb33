# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""A level of a SaShiMi at one position, in one kernel: each program runs all of its blocks for one stream.

Every product is one of a matrix and a vector, so what counts is how soon the weights arrive (from the L2 cache) and how
often warps wait for each other. A warp owns some rows of every matrix; vectors that are multiplied are in every warp
whole, so that norms and sums over a row are matters of one warp, and warps meet four times in a pair of blocks, when
results become the next vector. The residual stream is kept twice: whole in every warp, and with a warp's own rows.

Layouts are set by hand (see ``core/ops/_gluon.py``); without Gluon the same source is plain Triton.
"""

from __future__ import annotations

import functools
from typing import Any

import triton
import triton.language as tl
from triton.runtime.jit import constexpr_function

from ...core.ops._gluon import arange, arrange, gl, gluon, has_gluon, slice_of, zeros

#: What a level reads: embedded codes, codes of a whole pool, what the finer level has collected, or nothing.
EMBEDDED, EMBEDDED_POOL, POOL, NOTHING = (tl.constexpr(number) for number in range(4))
#: What it writes: logits (and the next code), what the finer level will read, or its place in the coarser one's pool.
LOGITS, SPREAD, COLLECT = (tl.constexpr(number) for number in range(3))
#: How the next code is drawn: not here, at random, or the most probable.
LATER, RANDOM, GREEDY = (tl.constexpr(number) for number in range(3))
#: Numbers before a norm's weights: shift, epsilon, and room to the next multiple of 16.
HEADER = tl.constexpr(16)


@constexpr_function
def rows_layout(rows, columns, warps, use_gluon):
    """(rows, columns): a row lies in one warp, four neighbours of it in a thread; a warp's rows are neighbours."""
    if not use_gluon:
        return None
    lanes = min(32, max(1, columns // 4))
    each = max(1, rows * lanes // (32 * warps))
    return gl.BlockedLayout([each, 4], [32 // lanes, lanes], [warps, 1], [1, 0])


@constexpr_function
def _row(layout):
    """The layout of a column of the tile: what each row has one of."""
    return slice_of(layout, 1)


@constexpr_function
def _column(layout):
    """The layout of a row of the tile: what each column has one of."""
    return slice_of(layout, 0)


@triton.jit
def _standard(at, x, real, real_width):
    """What to add to x and then to multiply it by, for (x - mean + shift) / sqrt(variance + eps) where ``real``."""
    shift, eps = tl.load(at), tl.load(at + 1)
    mean = tl.sum(x, 0) / real_width
    centered = tl.where(real, x - mean, 0.0)
    variance = tl.sum(centered * centered, 0) / real_width
    return shift - mean, tl.rsqrt(variance + eps)


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _planes(at, place, FIRST: tl.constexpr, COUNT: tl.constexpr, PLANE: tl.constexpr):
    """Some of the matrices of a state space as a tuple; ``place`` is where a matrix's elements lie in it."""
    found = ()
    for plane in tl.static_range(FIRST, FIRST + COUNT):
        found = found + (tl.load(at + plane * PLANE + place),)
    return found


@triton.jit
def _advance(state, place, before, planes, seen, u, RANK: tl.constexpr, PLANE: tl.constexpr):
    """Step some modes of all channels, given ``seen``; their products with ``output``."""
    a, b = before
    p = planes[0] * a - planes[1] * b + planes[2] * u
    q = planes[1] * a + planes[0] * b + planes[3] * u
    for r in tl.static_range(RANK):
        p -= planes[6 + 2 * r] * seen[r]
        q -= planes[7 + 2 * r] * seen[r]
    a += p
    b += q
    tl.store(state + place, a)
    tl.store(state + PLANE + place, b)
    return planes[4] * a - planes[5] * b


@triton.jit
def _modes(
    at, state, place, u, before, right, planes,
    PLANE: tl.constexpr, PARTS: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """Advance the states of all channels; their outputs without D u.

    x += (factor - 1) x + input · u - left (right · x);  y = output · x

    ``before``, ``right`` and ``planes`` are the old states and the matrices, where they fit the registers (one part).
    Else they are loaded here for some modes at a time, all sums over ``right`` first, since the old states enter them.
    """
    PLANES: tl.constexpr = 6 + 4 * RANK
    if PARTS > 1:
        before, right = (), ()
        for part in tl.static_range(PARTS):
            before = before + _planes(state + part * 2 * PLANE, place, 0, 2, PLANE)
            right = right + _planes(at + part * PLANES * PLANE, place, 6 + 2 * RANK, 2 * RANK, PLANE)
    seen = ()
    for r in tl.static_range(RANK):
        total = right[2 * r] * before[0] - right[2 * r + 1] * before[1]
        for part in tl.static_range(1, PARTS):
            total += right[2 * (part * RANK + r)] * before[2 * part]
            total -= right[2 * (part * RANK + r) + 1] * before[2 * part + 1]
        seen = seen + (tl.sum(total, 1)[:, None],)
    u = u[:, None]
    if PARTS == 1:
        y = _advance(state, place, before, planes, seen, u, RANK, PLANE)
    else:
        for part in tl.static_range(PARTS):
            planes = _planes(at + part * PLANES * PLANE, place, 0, 6 + 2 * RANK, PLANE)
            own = (before[2 * part], before[2 * part + 1])
            product = _advance(state + part * 2 * PLANE, place, own, planes, seen, u, RANK, PLANE)
            if part == 0:
                y = product
            else:
                y += product
    return tl.sum(y, 1)


@triton.jit
def _mix(weight, place, own, w, y, work, H: tl.constexpr, PART: tl.constexpr, L: tl.constexpr):
    """W y: ``w`` is W where it fits (PART is H), else its parts (H, PART) are loaded, and those of y from ``work``."""
    if PART == H:
        return tl.sum(w * y[None, :], 1)
    else:
        total = zeros(H, PART, L)
        for part in range(H // PART):
            some = tl.load(weight + part * H * PART + place)
            total += some * tl.load(work + part * PART + own)[None, :]
        return tl.sum(total, 1)


@triton.jit
def _feed_forward(
    inner, u, one, one_row, two, two_row, w1, w2,
    H: tl.constexpr, INNER: tl.constexpr, PART: tl.constexpr, ONE: tl.constexpr, TWO: tl.constexpr,
):  # fmt: skip
    """outer(gelu(inner(u))), rows of a warp's own; some hidden features at a time."""
    bias = inner + INNER * H
    outer = bias + INNER
    if PART == INNER:
        hidden = _gelu(tl.sum(w1 * u, 1) + tl.load(bias + one_row))
        total = w2 * arrange(hidden, _column(TWO))[None, :]
    else:
        total = zeros(H, PART, TWO)
        for part in range(INNER // PART):
            first = tl.load(inner + part * PART * H + one)
            second = tl.load(outer + part * PART * H + two)
            hidden = _gelu(tl.sum(first * u, 1) + tl.load(bias + part * PART + one_row))
            total += second * arrange(hidden, _column(TWO))[None, :]
    return tl.sum(total, 1) + tl.load(outer + INNER * H + two_row)


def _level(
    constants, states, kept, embedding, codes, numbers, scores, logits, cursor, collected, waiting, fresh, coarser,
    spread, work, offset, phase, layers, streams, real_width, vocabulary, temperature,
    H: tl.constexpr, M: tl.constexpr, RANK: tl.constexpr, GLU: tl.constexpr, INNER: tl.constexpr,
    FINE: tl.constexpr, FINE_POOL: tl.constexpr, COARSE_POOL: tl.constexpr, VOCABULARY: tl.constexpr,
    INPUT: tl.constexpr, OUTPUT: tl.constexpr, DRAW: tl.constexpr, UP: tl.constexpr, SAVE: tl.constexpr,
    ADD: tl.constexpr, AROUND: tl.constexpr, BLOCKS: tl.constexpr, HISTORY: tl.constexpr, PAIR: tl.constexpr,
    ENTRY: tl.constexpr, EXIT: tl.constexpr, MODES: tl.constexpr, MIX_PART: tl.constexpr, INNER_PART: tl.constexpr,
    ENTRY_PART: tl.constexpr, SPREAD_PART: tl.constexpr, EARLY: tl.constexpr, WARPS: tl.constexpr, USE: tl.constexpr,
):  # fmt: skip
    """Run a level, or the half of it before or behind the coarser ones, for the stream of this program.

    Pointers are to: the level's constants and states (stream, block, part, 2, channel, mode); kept
    (stream, block + 1, H), the vectors of a U-Net's way down; codes (HISTORY + time, stream), of which row
    ``cursor + offset + HISTORY`` is read and the next one written; collected (stream, FINE, FINE_POOL), inputs of this
    level; waiting and fresh (stream, H, COARSE_POOL), what the coarser level gave to these positions and what it gives
    to the next ones; coarser (stream, H, COARSE_POOL), its inputs; spread (stream, FINE, FINE_POOL), the finer level's
    ``fresh``; work (stream, H). With ``EARLY`` a pair's weights are all asked for at its begin.
    """
    T: tl.constexpr = rows_layout(H, MODES, WARPS, USE)
    MIX: tl.constexpr = rows_layout(H, MIX_PART, WARPS, USE)
    ONE: tl.constexpr = rows_layout(INNER_PART, H, WARPS, USE)
    TWO: tl.constexpr = rows_layout(H, INNER_PART, WARPS, USE)
    WHOLE: tl.constexpr = _column(ONE)
    OWN: tl.constexpr = _row(T)
    stream = tl.program_id(0).to(tl.int64)
    h, own_h = arange(H, WHOLE), arange(H, OWN)
    # Where the elements of each kind of tile, and of what its rows have one of, lie.
    modes = own_h[:, None] * MODES + arange(MODES, _column(T))[None, :]
    mix_row, mix_column = arange(H, _row(MIX)), arange(MIX_PART, _column(MIX))
    mix = mix_row[:, None] * MIX_PART + mix_column[None, :]
    one_row, two_row = arange(INNER_PART, _row(ONE)), arange(H, _row(TWO))
    one = one_row[:, None] * H + h[None, :]
    two = two_row[:, None] * INNER_PART + arange(INNER_PART, _column(TWO))[None, :]
    real = h < real_width
    slots = kept + stream * (BLOCKS + 1) * H
    if INPUT == EMBEDDED:
        now = tl.load(cursor) + offset
        code = tl.load(codes + (now + HISTORY) * streams + stream)
        x, own = tl.load(embedding + code * H + h), tl.load(embedding + code * H + own_h)
    elif INPUT != NOTHING:
        E: tl.constexpr = rows_layout(H, ENTRY_PART, WARPS, USE)
        entry_row, entry_column = arange(H, _row(E)), arange(ENTRY_PART, _column(E))
        entry = constants + ENTRY + entry_row[:, None] * ENTRY_PART + entry_column[None, :]
        for part in tl.static_range(FINE * FINE_POOL // ENTRY_PART):
            k = part * ENTRY_PART + entry_column
            w = tl.load(entry + part * H * ENTRY_PART)
            if INPUT == EMBEDDED_POOL:
                now = tl.load(cursor) + offset - (FINE_POOL - 1) + k % FINE_POOL
                code = tl.load(codes + (now + HISTORY) * streams + stream)
                pooled = tl.load(embedding + code * FINE + k // FINE_POOL)
            else:
                pooled = tl.load(collected + stream * FINE * FINE_POOL + k)
            if part == 0:
                total = w * pooled[None, :]
            else:
                total += w * pooled[None, :]
        entered = tl.sum(total, 1) + tl.load(constants + ENTRY + H * FINE * FINE_POOL + entry_row)
        x, own = arrange(entered, WHOLE), arrange(entered, OWN)
    if SAVE:
        tl.store(slots + h, x)
    if UP:
        place = stream * H * COARSE_POOL + h * COARSE_POOL
        own_place = stream * H * COARSE_POOL + own_h * COARSE_POOL
        if OUTPUT != COLLECT and INPUT != NOTHING and INPUT != EMBEDDED:
            tl.store(coarser + place + phase, x)
        source = waiting + phase
        if phase == 0:
            source = fresh + phase
            for later in tl.static_range(1, COARSE_POOL):
                tl.store(waiting + place + later, tl.load(fresh + place + later))
        above, own_above = tl.load(source + place), tl.load(source + own_place)
        if INPUT == NOTHING:
            x, own = above, own_above
        else:
            x += above
            own += own_above
        if ADD:
            x += tl.load(slots + BLOCKS * H + h)
            own += tl.load(slots + BLOCKS * H + own_h)
    around = x
    block = 0
    PLANE: tl.constexpr = H * MODES
    LEFT: tl.constexpr = 6 + 2 * RANK
    MATRICES: tl.constexpr = (6 + 4 * RANK) * H * M
    before, right, planes = (), (), ()
    if EARLY:
        before = _planes(states + stream * layers * 2 * H * M, modes, 0, 2, PLANE)
        planes = _planes(constants + HEADER + 2 * H, modes, 0, LEFT, PLANE)
        right = _planes(constants + HEADER + 2 * H, modes, LEFT, 2 * RANK, PLANE)
    for layer in range(layers):
        at = constants + layer * PAIR
        matrices = at + HEADER + 2 * H
        rest = matrices + MATRICES
        feed = rest + H + (1 + GLU) * (H * H + H)
        inner = feed + HEADER
        own_states = states + (stream * layers + layer) * 2 * H * M
        norm_weight, norm_bias = tl.load(at + HEADER + own_h), tl.load(at + HEADER + H + own_h)
        skip = tl.load(rest + own_h)
        mix_w, gate_w, w1, w2 = 0.0, 0.0, 0.0, 0.0
        if MIX_PART == H:
            mix_w = tl.load(rest + H + mix)
            if GLU:
                gate_w = tl.load(rest + 2 * H + H * H + mix)
        if EARLY:
            w1, w2 = tl.load(inner + one), tl.load(inner + INNER * H + INNER + two)
        add, scale = _standard(at, x, real, real_width)
        u = norm_weight * ((own + add) * scale) + norm_bias
        if MODES < M:
            y = _modes(matrices, own_states, modes, u, (), (), (), PLANE, M // MODES, RANK)
        elif EARLY:
            y = _modes(matrices, own_states, modes, u, before, right, planes, PLANE, 1, RANK)
            # The next block's (behind the last the first's) come while this one's other products are taken.
            following = (layer + 1) % layers
            at_following = constants + following * PAIR + HEADER + 2 * H
            before = _planes(states + (stream * layers + following) * 2 * H * M, modes, 0, 2, PLANE)
            planes = _planes(at_following, modes, 0, LEFT, PLANE)
            right = _planes(at_following, modes, LEFT, 2 * RANK, PLANE)
        else:
            now_before = _planes(own_states, modes, 0, 2, PLANE)
            now_planes = _planes(matrices, modes, 0, LEFT, PLANE)
            now_right = _planes(matrices, modes, LEFT, 2 * RANK, PLANE)
            y = _modes(matrices, own_states, modes, u, now_before, now_right, now_planes, PLANE, 1, RANK)
        y = _gelu(y + skip * u)
        z_bias = tl.load(rest + H + H * H + mix_row)
        own_work = work + stream * H
        if MIX_PART == H:
            whole_y = arrange(y, _column(MIX))
        else:
            tl.debug_barrier()
            tl.store(own_work + own_h, y)
            tl.debug_barrier()
            whole_y = y
        z = _mix(rest + H, mix, mix_column, mix_w, whole_y, own_work, H, MIX_PART, MIX) + z_bias
        if GLU:
            gate_at = rest + 2 * H + H * H
            gate_bias = tl.load(gate_at + H * H + mix_row)
            gate = _mix(gate_at, mix, mix_column, gate_w, whole_y, own_work, H, MIX_PART, MIX) + gate_bias
            z = z / (1.0 + tl.exp(-gate))
        x += arrange(z, WHOLE)
        own += arrange(z, OWN)
        block += 1
        if SAVE:
            tl.store(slots + block * H + h, x)
        if ADD:
            x += tl.load(slots + (BLOCKS - block) * H + h)
            own += tl.load(slots + (BLOCKS - block) * H + own_h)
        if INNER > 0:
            if INNER_PART == INNER and not EARLY:
                w1, w2 = tl.load(inner + one), tl.load(inner + INNER * H + INNER + two)
            # The norm's own weights are part of the first product's.
            add, scale = _standard(feed, x, real, real_width)
            u_row = ((x + add) * scale)[None, :]
            z = _feed_forward(inner, u_row, one, one_row, two, two_row, w1, w2, H, INNER, INNER_PART, ONE, TWO)
            x += arrange(z, WHOLE)
            own += arrange(z, OWN)
            block += 1
            if SAVE:
                tl.store(slots + block * H + h, x)
            if ADD:
                x += tl.load(slots + (BLOCKS - block) * H + h)
                own += tl.load(slots + (BLOCKS - block) * H + own_h)
    if AROUND:
        x += around
    end = constants + EXIT
    if OUTPUT == COLLECT:
        tl.store(coarser + stream * H * COARSE_POOL + h * COARSE_POOL + phase, x)
    elif OUTPUT == SPREAD:
        NUMBER: tl.constexpr = FINE * FINE_POOL
        S: tl.constexpr = rows_layout(SPREAD_PART, H, WARPS, USE)
        whole = arrange(x, _column(S))[None, :]
        spread_row = arange(SPREAD_PART, _row(S))
        leave = end + spread_row[:, None] * H + arange(H, _column(S))[None, :]
        for part in tl.static_range(NUMBER // SPREAD_PART):
            n = part * SPREAD_PART + spread_row
            w = tl.load(leave + part * SPREAD_PART * H)
            y = tl.sum(w * whole, 1) + tl.load(end + NUMBER * H + n)
            tl.store(spread + stream * NUMBER + n, y)
    else:
        V: tl.constexpr = rows_layout(VOCABULARY, H, WARPS, USE)
        v = arange(VOCABULARY, _row(V))
        head = end + HEADER
        w = tl.load(head + v[:, None] * H + arange(H, _column(V))[None, :])
        bias = tl.load(head + VOCABULARY * H + v)
        add, scale = _standard(end, x, real, real_width)
        y = tl.sum(w * arrange((x + add) * scale, _column(V))[None, :], 1) + bias
        if DRAW == LATER:
            tl.store(logits + stream * vocabulary + v, y, v < vocabulary)
        else:
            following = tl.load(cursor) + offset + 1
            number = tl.load(numbers + following * streams + stream).to(tl.float64)
            # Every warp takes all codes, so that no sum has to wait for another warp.
            F: tl.constexpr = _flat(VOCABULARY, WARPS, USE)
            v = arange(VOCABULARY, F)
            y = tl.where(v < vocabulary, arrange(y, F), float("-inf"))
            largest = tl.max(y, 0)
            own_log = y - largest - tl.log(tl.sum(tl.exp(y - largest), 0))
            if DRAW == GREEDY:
                drawn = tl.min(tl.where(y == largest, v, VOCABULARY), 0)
            else:
                weights = tl.exp((y - largest) / temperature)
                cumulative = tl.cumsum(weights.to(tl.float64), 0)
                drawn = tl.sum((cumulative <= number * tl.max(cumulative, 0)).to(tl.int32), 0)
            tl.store(codes + (following + HISTORY) * streams + stream, drawn.to(tl.int64))
            tl.store(scores + following * streams + stream, tl.sum(tl.where(v == drawn, own_log, 0.0), 0))


@constexpr_function
def _flat(size, warps, use_gluon):
    """A vector that is in every warp whole, neighbours in a thread."""
    if not use_gluon:
        return None
    return gl.BlockedLayout([max(1, size // 32)], [32], [warps], [0])


_UNSPECIALIZED = ["offset", "phase", "layers"]


@functools.cache
def level(device_type: str) -> tuple[Any, bool]:
    """The kernel for a device, and whether it was compiled with layouts."""
    use = has_gluon(device_type)
    return (gluon.jit if use else triton.jit)(_level, do_not_specialize=_UNSPECIALIZED), use
