# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated, index"
"""The backward pass of the short convolution in Triton: x and the output's gradient are read once, grad_x written once.

A program walks along a segment of a sequence with a block of channels, a few tokens at a time, while the next tokens
are loaded into shared memory: it repeats the convolution, which gives the gradient before the activation, adds this
to the sums for the taps and the bias, and writes the gradient of the input ``width - 1`` steps back, which is then
complete. The last ``width - 1`` inputs and gradients stay in registers. Each program writes its sums, which a second
kernel adds up, always in the same order.

States concern ``width - 1`` tokens of every sequence, and their gradients are made in plain PyTorch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import add_shares, ceil_div, multiprocessors, power_of_two, sigmoid
from . import chunked
from .arguments import Arguments
from .triton_shared import aligned, bounds_of, contiguous, load_steps, load_taps, packed_places, read

# Tokens in registers at once, channels of a program where few registers are needed and else, channels of a thread, and
# the shortest and the longest segment.
_TOKENS = 8
_CHANNELS = (128, 64)
_EACH = 4
_SEGMENTS = (32, 256)
_PROGRAMS = 12  # of a multiprocessor at most, if segments may be so long
_STAGES = 3  # blocks of tokens at hand or on their way, where few registers are needed


@triton.jit
def _through_activation(grad, value, SILU: tl.constexpr):
    """The gradient before the activation."""
    grad = grad.to(tl.float32)
    if SILU:
        gate = sigmoid(value)
        grad *= gate + gate * (value - value * gate)
    return grad


@triton.jit(do_not_specialize=["length", "blocks", "segments"])
def _adjoint(
    x, weight, bias, initial, positions, numbers, grad_y, grad_x, sums,
    length, blocks, segments, x_batch, grad_batch,
    X_TOKEN: tl.constexpr, GRAD_TOKEN: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, STAGES: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """grad_x of a segment of ``blocks`` blocks, and its part of the gradients of the taps and of the bias (the last
    row).

    Steps count in the direction of the scan: step s is token s, or token length - 1 - s with ``REVERSE``. Tap w of step
    s reads step s - (WIDTH - 1 - w), so an input's gradient needs the WIDTH - 1 steps after it. In a packed row a step
    reads back as far as its position in its sequence.
    """
    BACK: tl.constexpr = WIDTH - 1
    WAY: tl.constexpr = -1 if REVERSE else 1
    program = tl.program_id(0)
    row = program // tl.cdiv(DIM, CHANNELS)
    column = (program % tl.cdiv(DIM, CHANNELS)) * CHANNELS + tl.arange(0, CHANNELS)
    channel, here = column[None, :], (column < DIM)[None, :]
    batch = (row // segments).to(tl.int64)
    first = (row % segments).to(tl.int64) * (blocks * TOKENS)
    left = tl.minimum(length - first, 1 << 30).to(tl.int32)  # steps to the end
    token = first
    if REVERSE:
        token = length - 1 - first
    x_at = x + batch * x_batch + token * X_TOKEN + channel
    grad_at = grad_y + batch * grad_batch + token * GRAD_TOKEN + channel
    out_at = grad_x + (batch * length + token) * DIM + channel
    # What the first steps look back to: inputs, gradients (not of this segment, and not used), positions.
    window, pending, placed = (), (), ()
    for k in tl.static_range(BACK):
        step = first - BACK + k
        entering = tl.load(x_at - (BACK - k) * WAY * X_TOKEN, here & (step >= 0), 0.0).to(tl.float32)
        if HAS_INITIAL and not PACKED:
            place = (batch * BACK + step + BACK) * DIM + channel
            entering += tl.load(initial + place, here & (step < 0), 0.0).to(tl.float32)
        window = window + (entering,)
        pending = pending + (tl.zeros((1, CHANNELS), tl.float32),)
        placed = placed + (0,)
    taps = load_taps(weight, column, column < DIM, WIDTH, PADDED)
    totals = ()
    for _ in tl.static_range(WIDTH + HAS_BIAS):
        totals = totals + (tl.zeros((1, CHANNELS), tl.float32),)
    added = tl.zeros((1, CHANNELS), tl.float32)
    if HAS_BIAS:
        added = tl.load(bias + channel, here, 0.0).to(tl.float32)

    for block in tl.range(blocks, num_stages=STAGES):
        inputs = window + load_steps(x_at, WAY * X_TOKEN, left, here, TOKENS)
        grads = load_steps(grad_at, WAY * GRAD_TOKEN, left, here, TOKENS)
        x_at += TOKENS * WAY * X_TOKEN
        grad_at += TOKENS * WAY * GRAD_TOKEN
        places, before = placed, pending
        for j in tl.static_range(TOKENS):
            position, number = 0, 0
            if PACKED:
                position = tl.load(positions + token + j * WAY, left > j, 0)
                places = places + (position,)
                if HAS_INITIAL:
                    number = tl.load(numbers + token + j * WAY, left > j, 0).to(tl.int64)
            value, seen = added, ()
            for tap in tl.static_range(WIDTH):
                seen = seen + (
                    read(
                        inputs[j + tap], tap, position, number, initial, channel, here & (left > j),
                        BACK, DIM, HAS_INITIAL, PACKED,
                    ),
                )  # fmt: skip
                value += taps[tap] * seen[tap]
            grad = _through_activation(grads[j], value, SILU)
            before = before + (grad,)
            updated = ()
            for tap in tl.static_range(WIDTH):
                updated = updated + (totals[tap] + grad * seen[tap],)
            if HAS_BIAS:
                updated = updated + (totals[WIDTH] + grad,)
            totals = updated
        for j in tl.static_range(TOKENS):
            total = _gradient_of_input(before, places, taps, j, BACK, PACKED)
            inside = left > j - BACK
            if j < BACK:
                inside = inside & (block > 0)  # before the segment
            tl.store(out_at + (j - BACK) * WAY * DIM, total.to(grad_x.dtype.element_ty), here & inside)
        out_at += TOKENS * WAY * DIM
        token += TOKENS * WAY
        left -= TOKENS
        window, pending = (), ()
        for k in tl.static_range(BACK):
            window = window + (inputs[TOKENS + k].to(tl.float32),)
            pending = pending + (before[TOKENS + k],)
        if PACKED:
            placed = ()
            for k in tl.static_range(BACK):
                placed = placed + (places[TOKENS + k],)

    # The last inputs of the segment are also read by the steps after it, which are another row's.
    inputs = window + load_steps(x_at, WAY * X_TOKEN, left, here, BACK)
    grads = load_steps(grad_at, WAY * GRAD_TOKEN, left, here, BACK)
    places, before = placed, pending
    for j in tl.static_range(BACK):
        position, number = 0, 0
        if PACKED:
            position = tl.load(positions + token + j * WAY, left > j, 0)
            places = places + (position,)
            if HAS_INITIAL:
                number = tl.load(numbers + token + j * WAY, left > j, 0).to(tl.int64)
        value = added
        for tap in tl.static_range(WIDTH):
            value += taps[tap] * read(
                inputs[j + tap], tap, position, number, initial, channel, here & (left > j),
                BACK, DIM, HAS_INITIAL, PACKED,
            )  # fmt: skip
        before = before + (_through_activation(grads[j], value, SILU),)
    for j in tl.static_range(BACK):
        total = _gradient_of_input(before, places, taps, j, BACK, PACKED)
        tl.store(out_at + (j - BACK) * WAY * DIM, total.to(grad_x.dtype.element_ty), here & (left > j - BACK))

    sums += row.to(tl.int64) * (WIDTH + 1) * DIM
    for tap in tl.static_range(WIDTH + HAS_BIAS):
        tl.store(sums + tap * DIM + channel, totals[tap], here)


@triton.jit
def _gradient_of_input(before, places, taps, j, BACK: tl.constexpr, PACKED: tl.constexpr):
    """The taps times the gradients of the steps that read an input: its own and the BACK after it, from ``j`` on."""
    total = before[j] * taps[BACK]
    for later in tl.static_range(1, BACK + 1):
        grad = before[j + later]
        if PACKED:
            grad = tl.where(places[j + later] >= later, grad, 0.0)
        total += taps[BACK - later] * grad
    return total


def backward(
    arguments: Arguments, grad_y: Tensor, grad_final: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients of x, weight, bias and the initial state."""
    x, weight, bias, initial, cu_seqlens, use_silu, reverse, _ = arguments
    batch, length, dim = x.shape
    width = weight.shape[1]
    if not 2 <= width <= 8:  # the kernel holds that many tokens in registers
        return chunked.backward(arguments, grad_y, grad_final)
    positions, numbers = (x, x) if cu_seqlens is None else packed_places(arguments)
    x, grad_y = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (x, grad_y))
    light = width <= 4 and cu_seqlens is None and aligned(x) and aligned(grad_y)
    channels = min(_CHANNELS[0 if light else 1], power_of_two(dim))
    channel_blocks = ceil_div(dim, channels)
    blocks, segments = _layout(batch, length, channel_blocks, x.device)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sums = torch.empty((batch * segments, width + 1, dim), dtype=torch.float32, device=x.device)
    _adjoint[(batch * segments * channel_blocks,)](
        x, weight.contiguous(), contiguous(bias, x), contiguous(initial, x), positions, numbers, grad_y, grad_x, sums,
        length, blocks, segments, x.stride(0), grad_y.stride(0),
        X_TOKEN=x.stride(1), GRAD_TOKEN=grad_y.stride(1), DIM=dim, WIDTH=width, PADDED=power_of_two(width),
        TOKENS=_TOKENS, CHANNELS=channels, STAGES=_STAGES if light else 1,
        HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None, PACKED=cu_seqlens is not None,
        REVERSE=reverse, SILU=use_silu, num_warps=max(1, channels // (32 * _EACH)),
    )  # fmt: skip
    grad_weight, grad_bias = add_shares(sums, weight, bias)
    grad_initial = None
    if initial is not None or grad_final is not None:
        bounds = bounds_of(arguments)
        grad_initial = None if initial is None else _initial_gradient(arguments, bounds, grad_y)
        if grad_final is not None:
            _add_final_gradient(arguments, bounds, grad_final, grad_x, grad_initial)
    return grad_x, grad_weight, grad_bias, grad_initial


def _layout(batch: int, length: int, channel_blocks: int, device: torch.device) -> tuple[int, int]:
    """Blocks of tokens in a segment, and segments of a sequence: as long as programs fill the device once."""
    wanted = ceil_div(batch * length * channel_blocks, _PROGRAMS * multiprocessors(device.index or 0))
    shortest, longest = _SEGMENTS
    segments = max(1, length // min(max(wanted, shortest), longest))
    blocks = ceil_div(length, segments * _TOKENS)
    return blocks, ceil_div(length, blocks * _TOKENS)


def _initial_gradient(arguments: Arguments, bounds: Tensor, grad_y: Tensor) -> Tensor:
    """Of the initial states: the first ``width - 1`` steps of every sequence are all that reads them."""
    x, weight, bias, initial, _, use_silu, reverse, _ = arguments
    step = torch.arange(weight.shape[1] - 1, device=x.device)
    begin, end = bounds[:, :1], bounds[:, 1:]
    known = step < end - begin
    token = torch.where(known, end - 1 - step if reverse else begin + step, begin)
    heads, grads = (tensor.reshape(-1, x.shape[2])[token] for tensor in (x, grad_y))
    grads = grads.masked_fill(~known[..., None], 0)
    alone = Arguments(heads, weight, bias, initial, None, use_silu, False)
    return chunked.backward(alone, grads, None)[3]


def _add_final_gradient(
    arguments: Arguments, bounds: Tensor, grad_final: Tensor, grad_x: Tensor, grad_initial: Tensor | None
) -> None:
    """Final states are the last inputs of every sequence, or rows of its initial state where it is that short."""
    rows, dim = arguments.state_shape[1:]
    begin, end = bounds[:, :1], bounds[:, 1:]
    row = torch.arange(rows, device=bounds.device)
    back = rows - row  # how many steps before the end of the scan
    known = back <= end - begin
    token = torch.where(known, begin - 1 + back if arguments.reverse else end - back, begin)
    to_x = grad_final.masked_fill(~known[..., None], 0)
    grad_x.view(-1, dim).index_put_((token,), to_x.to(grad_x.dtype), accumulate=True)
    if grad_initial is not None:
        to_initial = grad_final.masked_fill(known[..., None], 0)
        number = torch.arange(len(bounds), device=bounds.device)[:, None].expand_as(known)
        place = (number, (row + end - begin).clamp(max=rows - 1))
        grad_initial.index_put_(place, to_initial.to(grad_initial.dtype), accumulate=True)
