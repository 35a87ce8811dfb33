# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated, index"
"""The kernel of the linear scan in Triton: import this module on first use only.

A program walks along one sequence, or one chunk of it, with a block of channels. It takes a tile of tokens at a time:
each row of the tile is a run of consecutive tokens, all loaded before the first is used. Every row scans its own run
from zero, an associative scan over the rows gives the state that enters each, and the products of the factors along the
run bring it to the tokens. A tile of one row, the choice where programs abound, simply goes on from token to token.

A complex number (p, q) lies in memory as two float32 and is loaded and stored as one 64-bit integer.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _unpack(bits, COMPLEX: tl.constexpr):
    """Real and imaginary part in float32 of loaded values."""
    if COMPLEX:
        real = bits.to(tl.int32).to(tl.float32, bitcast=True)
        imaginary = (bits >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    else:
        real = bits.to(tl.float32)
        imaginary = tl.zeros_like(real)
    return real, imaginary


@triton.jit
def _write(pointer, real, imaginary, mask, COMPLEX: tl.constexpr):
    if COMPLEX:
        low = real.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
        tl.store(pointer, (imaginary.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low, mask)
    else:
        tl.store(pointer, real.to(pointer.dtype.element_ty), mask)


@triton.jit
def _after(p, q, h, k, x, y, COMPLEX: tl.constexpr, RESETS: tl.constexpr):
    """(p + iq) (h + ik) + (x + iy); with ``RESETS`` a vanishing factor forgets even a state that is not finite."""
    real, imaginary = p * h, y
    if COMPLEX:
        real -= q * k
        imaginary = p * k + q * h
    if RESETS:
        forgotten = p == 0.0
        if COMPLEX:
            forgotten = forgotten & (q == 0.0)
            imaginary = tl.where(forgotten, 0.0, imaginary)
        real = tl.where(forgotten, 0.0, real)
    if COMPLEX:
        imaginary += y
    return real + x, imaginary


# Two runs of tokens become one: the product over all of it and its last state from zero, and the same without its last
# row, with which a scan over rows gives for each what enters it.


@triton.jit
def _join_real(p, h, e, g, p2, h2, e2, g2):
    return p * p2, p2 * h + h2, p * e2, e2 * h + g2


@triton.jit
def _join_real_resets(p, h, e, g, p2, h2, e2, g2):
    state, _ = _after(p2, p2, h, h, h2, h2, False, True)
    enters, _ = _after(e2, e2, h, h, g2, g2, False, True)
    return p * p2, state, p * e2, enters


@triton.jit
def _join_complex(p, q, h, k, e, f, g, j, p2, q2, h2, k2, e2, f2, g2, j2):
    h2, k2 = _after(p2, q2, h, k, h2, k2, True, False)
    g2, j2 = _after(e2, f2, h, k, g2, j2, True, False)
    return p * p2 - q * q2, p * q2 + q * p2, h2, k2, p * e2 - q * f2, p * f2 + q * e2, g2, j2


@triton.jit
def _join_complex_resets(p, q, h, k, e, f, g, j, p2, q2, h2, k2, e2, f2, g2, j2):
    h2, k2 = _after(p2, q2, h, k, h2, k2, True, True)
    g2, j2 = _after(e2, f2, h, k, g2, j2, True, True)
    return p * p2 - q * q2, p * q2 + q * p2, h2, k2, p * e2 - q * f2, p * f2 + q * e2, g2, j2


@triton.jit
def _across_rows(p, q, h, k, COMPLEX: tl.constexpr, RESETS: tl.constexpr):
    """Inclusive and exclusive scan over the rows of a tile: p, q, h, k and e, f, g, j of the functions above."""
    e, g = tl.full(p.shape, 1.0, tl.float32), tl.zeros(p.shape, tl.float32)
    f, j = g, g
    if COMPLEX:
        if RESETS:
            p, q, h, k, e, f, g, j = tl.associative_scan((p, q, h, k, e, g, g, g), 0, _join_complex_resets)
        else:
            p, q, h, k, e, f, g, j = tl.associative_scan((p, q, h, k, e, g, g, g), 0, _join_complex)
    else:
        if RESETS:
            p, h, e, g = tl.associative_scan((p, h, e, g), 0, _join_real_resets)
        else:
            p, h, e, g = tl.associative_scan((p, h, e, g), 0, _join_real)
    return p, q, h, k, e, f, g, j


@triton.jit
def _last(values, ROWS: tl.constexpr):
    """The last row, (1, channels)."""
    row = tl.arange(0, ROWS)[:, None]
    return tl.sum(tl.where(row == ROWS - 1, values, 0.0), axis=0)[None, :]


@triton.jit
def scan(
    a, x, initial, carried, states, starts, ends, y, grad_a, leaving, products,
    length, dim, chunk, chunks, channel_blocks, a_batch, a_token, x_batch, x_token,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, TOKENS: tl.constexpr,
    COMPLEX: tl.constexpr, A_COMPLEX: tl.constexpr, X_COMPLEX: tl.constexpr, Y_COMPLEX: tl.constexpr,
    ONE_FACTOR: tl.constexpr,
    HAS_INITIAL: tl.constexpr, CHUNKED: tl.constexpr, PACKED: tl.constexpr, RESETS: tl.constexpr,
    REVERSE: tl.constexpr, ADJOINT: tl.constexpr, SUMMARY: tl.constexpr,
):  # fmt: skip
    """One chunk of a row of the batch and a block of channels; with ``SUMMARY`` its product and last state alone.

    Steps count in the direction of the scan: step s is token s, or token length - 1 - s with ``REVERSE``. ``ADJOINT``
    is the backward pass: the factor of a step is that of the step before it, conjugated (one for the first step, whose
    entering state is the gradient of the final state).
    """
    program = tl.program_id(0).to(tl.int64)
    block, place = program % channel_blocks, program // channel_blocks
    part, batch = place % chunks, place // chunks
    begin = part * chunk
    stop = tl.minimum(begin + chunk, length)
    channel = (block * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    here = channel < dim
    row = tl.arange(0, ROWS)[:, None]
    origin = tl.zeros_like(program)
    way = origin + 1
    if REVERSE:
        origin += length - 1
        way = -way
    a += batch * a_batch
    if not ONE_FACTOR:  # for all channels of a token
        a += channel
    x += batch * x_batch + channel
    states += batch * length * dim + channel
    y += batch * length * dim + channel
    grad_a += batch * length * dim + channel

    h = tl.zeros((1, CHANNELS), tl.float32)
    k = h
    total_p, total_q = h + 1.0, h
    if not SUMMARY:
        if HAS_INITIAL and not PACKED:
            h, k = _unpack(tl.load(initial + batch * dim + channel, here & (part == 0), 0), COMPLEX)
        if CHUNKED:
            bits = tl.load(carried + (place - 1) * dim + channel, here & (part > 0), 0)
            carry, carry_imaginary = _unpack(bits, COMPLEX)
            h += carry
            k += carry_imaginary

    for first in range(begin, stop, ROWS * TOKENS):
        step = first + row * TOKENS
        token = origin + step * way
        # Tokens of the chunk from here on, and of the sequence after the first of them.
        left, beyond = (stop - step).to(tl.int32), tl.minimum(length - 1 - step, TOKENS).to(tl.int32)
        a_at, x_at, states_at = a + token * a_token, x + token * x_token, states + (token + way) * dim
        if ADJOINT:
            a_at -= way * a_token
        factors, inputs, beginning, ending, before = (), (), (), (), ()
        for j in tl.static_range(TOKENS):
            inside = left > j
            known = inside
            if ADJOINT and j == 0:
                known = known & (step > 0)
            if not ONE_FACTOR:
                known = known & here
            if A_COMPLEX:
                factors = factors + (tl.load(a_at, known, 0x3F800000),)  # the bits of 1 + 0i
            else:
                factors = factors + (tl.load(a_at, known, 1.0),)
            inputs = inputs + (tl.load(x_at, here & inside, 0),)
            a_at += way * a_token
            x_at += way * x_token
            if PACKED:
                beginning = beginning + (tl.load(starts + token + j * way, inside, -1).to(tl.int64),)
                if not SUMMARY:
                    ending = ending + (tl.load(ends + token + j * way, inside, -1).to(tl.int64),)
            if ADJOINT and not SUMMARY:
                if PACKED:
                    earlier = inside & (ending[j] < 0)
                else:
                    earlier = inside & (beyond > j)
                before = before + (tl.load(states_at, here & earlier, 0),)
                states_at += way * dim

        # Each row from zero, with the products of its factors; a single row from the state that enters it.
        reals, imaginaries, ps, qs = (), (), (), ()
        p, q = tl.full((ROWS, CHANNELS), 1.0, tl.float32), tl.zeros((ROWS, CHANNELS), tl.float32)
        if ROWS > 1:
            h_row, k_row = q, q
        else:
            h_row, k_row = h, k
        for j in tl.static_range(TOKENS):
            factor, factor_imaginary = _unpack(factors[j], A_COMPLEX)
            value, value_imaginary = _unpack(inputs[j], X_COMPLEX)
            if ADJOINT:
                factor_imaginary = -factor_imaginary
            if PACKED:
                start = beginning[j] >= 0
                if HAS_INITIAL:
                    loaded = tl.load(initial + beginning[j] * dim + channel, here & start, 0)
                    entering, entering_imaginary = _unpack(loaded, COMPLEX)
                    if ADJOINT:
                        value += entering
                        value_imaginary += entering_imaginary
                    else:
                        value, value_imaginary = _after(
                            factor, factor_imaginary, entering, entering_imaginary, value, value_imaginary,
                            COMPLEX, False,
                        )  # fmt: skip
                factor = tl.where(start, 0.0, factor)
                factor_imaginary = tl.where(start, 0.0, factor_imaginary)
            h_row, k_row = _after(factor, factor_imaginary, h_row, k_row, value, value_imaginary, COMPLEX, RESETS)
            if COMPLEX:
                p, q = p * factor - q * factor_imaginary, p * factor_imaginary + q * factor
            else:
                p = p * factor
            reals, imaginaries = reals + (h_row,), imaginaries + (k_row,)
            ps, qs = ps + (p,), qs + (q,)

        enters, enters_imaginary = h, k
        if ROWS > 1:
            p, q, h_row, k_row, e, f, g, i = _across_rows(p, q, h_row, k_row, COMPLEX, RESETS)
            enters, enters_imaginary = _after(e, f, h, k, g, i, COMPLEX, RESETS)
            h_row, k_row = _after(p, q, h, k, h_row, k_row, COMPLEX, RESETS)
            h = _last(h_row, ROWS)
            if COMPLEX:
                k = _last(k_row, ROWS)
            if SUMMARY:
                p = _last(p, ROWS)
                if COMPLEX:
                    q = _last(q, ROWS)
        else:
            h, k = h_row, k_row
        if SUMMARY:
            if COMPLEX:
                total_p, total_q = total_p * p - total_q * q, total_p * q + total_q * p
            else:
                total_p = total_p * p
        else:
            y_at, grad_at = y + token * dim, grad_a + token * dim
            for j in tl.static_range(TOKENS):
                real, imaginary = reals[j], imaginaries[j]
                if ROWS > 1:
                    real, imaginary = _after(
                        ps[j], qs[j], enters, enters_imaginary, real, imaginary, COMPLEX, RESETS
                    )  # fmt: skip
                inside = here & (left > j)
                _write(y_at, real, imaginary, inside, Y_COMPLEX)
                y_at += way * dim
                if PACKED:
                    _write(leaving + ending[j] * dim + channel, real, imaginary, here & (ending[j] >= 0), COMPLEX)
                if ADJOINT:
                    state, state_imaginary = _unpack(before[j], COMPLEX)
                    product = real * state
                    product_imaginary = product
                    if COMPLEX:
                        product += imaginary * state_imaginary
                        product_imaginary = imaginary * state - real * state_imaginary
                    _write(grad_at, product, product_imaginary, inside, A_COMPLEX)
                    grad_at += way * dim

    if SUMMARY:
        _write(leaving + place * dim + channel, h, k, here, COMPLEX)
        _write(products + place * dim + channel, total_p, total_q, here, COMPLEX)
    elif not PACKED:
        _write(leaving + batch * dim + channel, h, k, here & (part == chunks - 1), COMPLEX)
