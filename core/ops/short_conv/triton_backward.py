# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated, index"
"""The backward pass of the short convolution in Triton: x and the output's gradient are read once, grad_x written once.

The rows of a tile are segments of sequences. A program walks along all of its rows at once, a few tokens at a time: it
repeats the convolution, which gives the gradient before the activation, adds this to the sums for the taps and the
bias, and writes the gradient of the input ``width - 1`` steps back, which is then complete. The last ``width - 1``
inputs and gradients stay in registers. Each program writes its sums, which are added up afterwards, always in the same
order.

States concern ``width - 1`` tokens of every sequence, and their gradients are made in plain PyTorch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._packing import sequence_offsets
from .._triton import multiprocessors
from . import chunked
from .arguments import Arguments

# Tokens in registers at once, channels of a program where a row takes few registers and else, rows of a program at
# most, and the shortest and the longest segment.
_TOKENS = 8
_CHANNELS = (128, 64)
_ROWS = 4
_SEGMENTS = (32, 256)
# Segments are made so short that a multiprocessor has so many rows of one block of channels.
_ROWS_EACH = 64


@triton.jit
def _adjoint(
    x, weight, bias, initial, positions, numbers, grad_y, grad_x, sums,
    length, dim, segment, segments, rows, channel_blocks, x_batch, x_token, grad_batch, grad_token,
    WIDTH: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """grad_x of ``ROWS`` segments, and their part of the gradients of the taps and of the bias (the last row).

    Steps count in the direction of the scan: step s is token s, or token length - 1 - s with ``REVERSE``. Tap w of step
    s reads step s - (WIDTH - 1 - w), so an input's gradient needs the WIDTH - 1 steps after it. In a packed row a step
    reads back as far as its position in its sequence.
    """
    BACK: tl.constexpr = WIDTH - 1
    program = tl.program_id(0).to(tl.int64)
    channel = ((program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    here = channel < dim
    group = program // channel_blocks
    row = group * ROWS + tl.arange(0, ROWS)[:, None]
    batch = row // segments
    first = (row % segments) * segment
    stop = tl.where(row < rows, length, 0).to(tl.int64)
    origin = tl.zeros_like(program)
    way = origin + 1
    if REVERSE:
        origin += length - 1
        way = -way
    taps, totals = (), ()
    for tap in tl.static_range(WIDTH):
        taps = taps + (tl.load(weight + tap * dim + channel, here, 0.0).to(tl.float32),)
        totals = totals + (tl.zeros((ROWS, CHANNELS), tl.float32),)
    total_bias = tl.zeros((ROWS, CHANNELS), tl.float32)
    added = tl.zeros((1, CHANNELS), tl.float32)
    if HAS_BIAS:
        added = tl.load(bias + channel, here, 0.0).to(tl.float32)

    x_at = x + batch * x_batch + (origin + (first - BACK) * way) * x_token + channel
    grad_at = grad_y + batch * grad_batch + (origin + first * way) * grad_token + channel
    out_at = grad_x + (batch * length + origin + (first - BACK) * way) * dim + channel
    # What the first steps look back to: inputs, gradients (not of this segment, and not used), positions.
    window, pending, placed = (), (), ()
    for k in tl.static_range(BACK):
        step = first - BACK + k
        known = (step >= 0) & (step < stop)
        entering = tl.load(x_at, here & known, 0.0).to(tl.float32)
        if HAS_INITIAL and not PACKED:
            state_row = batch * BACK + step + BACK
            outside = here & (step < 0) & (stop > 0)
            entering += tl.load(initial + state_row * dim + channel, outside, 0.0).to(tl.float32)
        window = window + (entering,)
        pending = pending + (tl.zeros((ROWS, CHANNELS), tl.float32),)
        placed = placed + (tl.zeros((ROWS, 1), tl.int32),)
        x_at += way * x_token

    for block in range(tl.cdiv(segment + BACK, TOKENS)):
        done = block * TOKENS
        step = first + done
        left = tl.minimum(stop - step, TOKENS).to(tl.int32)
        inputs, grads, places, sequences = window, (), placed, ()
        for j in tl.static_range(TOKENS):
            inside = left > j
            inputs = inputs + (tl.load(x_at, here & inside, 0.0),)
            grads = grads + (tl.load(grad_at, here & inside, 0.0),)
            if PACKED:
                token = origin + (step + j) * way
                places = places + (tl.load(positions + token, inside, 0),)
                if HAS_INITIAL:
                    sequences = sequences + (tl.load(numbers + token, inside, 0).to(tl.int64),)
            x_at += way * x_token
            grad_at += way * grad_token
        before = pending  # the gradients before the activation
        for j in tl.static_range(TOKENS):
            value = added
            read = ()
            for tap in tl.static_range(WIDTH):
                seen = inputs[j + tap].to(tl.float32)
                if PACKED and tap < BACK:
                    known = places[j + BACK] >= BACK - tap
                    seen = tl.where(known, seen, 0.0)
                    if HAS_INITIAL:
                        state_row = sequences[j] * BACK + places[j + BACK] + tap
                        outside = here & (left > j) & (known == 0)
                        seen += tl.load(initial + state_row * dim + channel, outside, 0.0).to(tl.float32)
                read = read + (seen,)
                value += taps[tap] * seen
            grad = grads[j].to(tl.float32)
            if SILU:
                gate = 1.0 / (1.0 + tl.exp(-value))
                grad *= gate * (1.0 + value * (1.0 - gate))
            before = before + (grad,)
            # The steps after the segment are another row's.
            own = tl.where(done + j < segment, grad, 0.0)
            total_bias += own
            updated = ()
            for tap in tl.static_range(WIDTH):
                updated = updated + (totals[tap] + own * read[tap],)
            totals = updated
        for j in tl.static_range(TOKENS):
            total = tl.zeros((ROWS, CHANNELS), tl.float32)
            for ahead in tl.static_range(WIDTH):
                grad = before[j + ahead]
                if PACKED and ahead > 0:
                    grad = tl.where(places[j + ahead] >= ahead, grad, 0.0)
                total += taps[BACK - ahead] * grad
            inside = (left > j - BACK) & (done + j >= BACK)
            tl.store(out_at, total.to(grad_x.dtype.element_ty), here & inside)
            out_at += way * dim
        window, pending = (), ()
        for k in tl.static_range(BACK):
            window = window + (inputs[TOKENS + k].to(tl.float32),)
            pending = pending + (before[TOKENS + k],)
        if PACKED:
            placed = ()
            for k in tl.static_range(BACK):
                placed = placed + (places[TOKENS + k],)

    sums += group * (WIDTH + 1) * dim
    for tap in tl.static_range(WIDTH):
        tl.store(sums + tap * dim + channel, tl.sum(totals[tap], axis=0)[None, :], here)
    tl.store(sums + WIDTH * dim + channel, tl.sum(total_bias, axis=0)[None, :], here)


def backward(
    arguments: Arguments, grad_y: Tensor, grad_final: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The gradients of x, weight, bias and the initial state."""
    x, weight, bias, initial, cu_seqlens, use_silu, reverse = arguments
    batch, length, dim = x.shape
    width = weight.shape[1]
    if not 2 <= width <= 8:  # the kernel holds that many tokens in registers
        return chunked.backward(arguments, grad_y, grad_final)
    bounds = _bounds(arguments)
    positions = numbers = x
    if cu_seqlens is not None:
        token = torch.arange(length, device=x.device)
        numbers = torch.bucketize(token, cu_seqlens[1:].long(), right=True)
        positions = (bounds[numbers, 1] - 1 - token if reverse else token - bounds[numbers, 0]).int()
    x, grad_y = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (x, grad_y))
    taps = weight.T.contiguous()
    light = width <= 4 and cu_seqlens is None and _aligned(x) and _aligned(grad_y)
    channels = min(_CHANNELS[0 if light else 1], triton.next_power_of_2(dim))
    channel_blocks = triton.cdiv(dim, channels)
    segment, segments, tile_rows = _layout(batch, length, channel_blocks, width, x.device)
    groups = triton.cdiv(batch * segments, tile_rows)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sums = torch.empty((groups, width + 1, dim), dtype=torch.float32, device=x.device)
    _adjoint[(groups * channel_blocks,)](
        x, taps, x if bias is None else bias, x if initial is None else initial.contiguous(), positions, numbers,
        grad_y, grad_x, sums, length, dim, segment, segments, batch * segments, channel_blocks,
        x.stride(0), x.stride(1), grad_y.stride(0), grad_y.stride(1),
        WIDTH=width, TOKENS=_TOKENS, ROWS=tile_rows, CHANNELS=channels,
        HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None, PACKED=cu_seqlens is not None,
        REVERSE=reverse, SILU=use_silu, num_warps=max(1, tile_rows * min(channels, 64) // 64),
    )  # fmt: skip
    total = sums.sum(0)
    grad_initial = None if initial is None else _initial_gradient(arguments, bounds, grad_y)
    if grad_final is not None:
        _add_final_gradient(arguments, bounds, grad_final, grad_x, grad_initial)
    return grad_x, total[:-1].T, total[-1], grad_initial


def _aligned(tensor: Tensor) -> bool:
    """Whether several channels at once can be loaded from every token."""
    return tensor.data_ptr() % 16 == 0 and all(step % 16 == 0 for step in tensor.stride()[:2])


def _layout(batch: int, length: int, channel_blocks: int, width: int, device: torch.device) -> tuple[int, int, int]:
    """The length and number of the segments of a sequence, and the rows of a program.

    A segment and the steps after it that it needs are a whole number of blocks of tokens.
    """
    wanted = triton.cdiv(batch * length * channel_blocks, _ROWS_EACH * multiprocessors(device.index or 0))
    shortest, longest = _SEGMENTS
    blocks = triton.cdiv(min(max(wanted, shortest), longest, length + width - 1), _TOKENS)
    segment = max(blocks * _TOKENS - (width - 1), 1)
    segments = triton.cdiv(length, segment)
    return segment, segments, min(_ROWS, triton.next_power_of_2(batch * segments))


def _bounds(arguments: Arguments) -> Tensor:
    """The first token of every sequence and the one after its last, in the flattened (batch * length) axis."""
    batch, length, _ = arguments.x.shape
    if arguments.cu_seqlens is None:
        first = torch.arange(batch, device=arguments.x.device) * length
        return torch.stack([first, first + length], dim=1)
    sequence_offsets("short_conv", arguments.cu_seqlens, 1, length)  # checks the values
    offsets = arguments.cu_seqlens.long()
    return torch.stack([offsets[:-1], offsets[1:]], dim=1)


def _initial_gradient(arguments: Arguments, bounds: Tensor, grad_y: Tensor) -> Tensor:
    """Of the initial states: the first ``width - 1`` steps of every sequence are all that reads them."""
    x, weight, bias, initial, _, use_silu, reverse = arguments
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
