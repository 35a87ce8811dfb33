# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The short convolution in Triton: the forward pass, which reads every input once from wherever it lies in memory.

A program walks along segments of sequences with a block of channels, a few tokens at a time. The inputs of the next
tokens are on their way while those at hand are convolved; the last ``width - 1`` stay in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import ceil_div, power_of_two, silu
from .arguments import Arguments
from .triton_backward import backward
from .triton_shared import contiguous, load_steps, load_taps, packed_places, read

__all__ = ["backward", "forward"]

# Tokens in registers at once, such blocks in a segment, segments and channels of a program, channels of a thread.
_TOKENS = 8
_BLOCKS = 2
_ROWS = 4
_CHANNELS = 128
_EACH = 4


@triton.jit(do_not_specialize=["length", "segments", "rows"])
def _convolve(
    x, weight, bias, initial, positions, numbers, y, length, segments, rows, x_batch,
    X_TOKEN: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, BLOCKS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Steps count in the direction of the scan: step s is token s, or token length - 1 - s with ``REVERSE``. Tap w of
    step s reads step s - (WIDTH - 1 - w), in a packed row as far back as its position in its sequence."""
    BACK: tl.constexpr = WIDTH - 1
    WAY: tl.constexpr = -1 if REVERSE else 1
    program = tl.program_id(0)
    column = (program % tl.cdiv(DIM, CHANNELS)) * CHANNELS + tl.arange(0, CHANNELS)
    channel, here = column[None, :], (column < DIM)[None, :]
    row = (program // tl.cdiv(DIM, CHANNELS)) * ROWS + tl.arange(0, ROWS)[:, None]
    batch = (row // segments).to(tl.int64)
    first = (row % segments).to(tl.int64) * (TOKENS * BLOCKS)
    left = tl.where(row < rows, tl.minimum(length - first, 1 << 30), 0).to(tl.int32)
    token = first
    if REVERSE:
        token = length - 1 - first
    x_at = x + batch * x_batch + token * X_TOKEN + channel
    y_at = y + (batch * length + token) * DIM + channel
    window = ()
    for k in tl.static_range(BACK):
        step = first - BACK + k
        entering = tl.load(x_at - (BACK - k) * WAY * X_TOKEN, here & (step >= 0) & (left > 0), 0.0)
        if HAS_INITIAL and not PACKED:
            place = (batch * BACK + step + BACK) * DIM + channel
            old = tl.load(initial + place, here & (step < 0) & (left > 0), 0.0)
            entering = entering.to(tl.float32) + old.to(tl.float32)
        window = window + (entering,)
    ahead = load_steps(x_at, WAY * X_TOKEN, left, here, TOKENS)
    taps = load_taps(weight, column, column < DIM, WIDTH, PADDED)
    added = tl.zeros((1, CHANNELS), tl.float32)
    if HAS_BIAS:
        added = tl.load(bias + channel, here, 0.0).to(tl.float32)

    for block in tl.static_range(BLOCKS):
        inputs = window + ahead
        if block + 1 < BLOCKS:
            ahead = load_steps(
                x_at + (block + 1) * TOKENS * WAY * X_TOKEN, WAY * X_TOKEN, left - (block + 1) * TOKENS, here, TOKENS
            )
        for j in tl.static_range(TOKENS):
            done = block * TOKENS + j
            position, number = 0, 0
            if PACKED:
                position = tl.load(positions + token + done * WAY, left > done, 0)
                if HAS_INITIAL:
                    number = tl.load(numbers + token + done * WAY, left > done, 0).to(tl.int64)
            total = added
            for tap in tl.static_range(WIDTH):
                total += taps[tap] * read(
                    inputs[j + tap], tap, position, number, initial, channel, here & (left > done),
                    BACK, DIM, HAS_INITIAL, PACKED,
                )  # fmt: skip
            if SILU:
                total = silu(total)
            tl.store(y_at + done * WAY * DIM, total.to(y.dtype.element_ty), here & (left > done))
        window = ()
        for k in tl.static_range(BACK):
            window = window + (inputs[TOKENS + k],)


def forward(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the final states, which are empty unless wanted."""
    x, weight, bias, initial, cu_seqlens, use_silu, reverse, want_final = arguments
    batch, length, dim = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    positions, numbers = (x, x) if cu_seqlens is None else packed_places(arguments)
    width = weight.shape[1]
    channels = min(_CHANNELS, power_of_two(dim))
    segments, channel_blocks = ceil_div(length, _TOKENS * _BLOCKS), ceil_div(dim, channels)
    rows = min(_ROWS, power_of_two(batch * segments))
    _convolve[(ceil_div(batch * segments, rows) * channel_blocks,)](
        x, weight.contiguous(), contiguous(bias, x), contiguous(initial, x), positions, numbers, y,
        length, segments, batch * segments, x.stride(0),
        X_TOKEN=x.stride(1), DIM=dim, WIDTH=width, PADDED=power_of_two(width), TOKENS=_TOKENS, BLOCKS=_BLOCKS,
        ROWS=rows, CHANNELS=channels,
        HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None, PACKED=cu_seqlens is not None,
        REVERSE=reverse, SILU=use_silu, num_warps=max(1, rows * channels // (32 * _EACH)),
    )  # fmt: skip
    return y, _final(arguments) if want_final else x.new_empty(arguments.final_shape)


def _final(arguments: Arguments) -> Tensor:
    """The last inputs of every sequence in the order of the scan, from the initial state where they are too few."""
    x, _, _, initial, cu_seqlens, _, reverse, _ = arguments
    rows, length = arguments.state_shape[1], x.shape[1]
    if cu_seqlens is None and length >= rows:
        return x[:, :rows].flip(1) if reverse else x[:, length - rows :].clone()
    if cu_seqlens is None:
        bounds = torch.tensor([0, length], device=x.device).expand(len(x), 2) + 0
        first = torch.arange(len(x), device=x.device)[:, None] * length
        bounds = bounds + first
    else:
        bounds = torch.stack([cu_seqlens[:-1].long(), cu_seqlens[1:].long()], dim=1)
    back = torch.arange(rows, 0, -1, device=x.device)  # how many tokens before the end of the scan
    tokens = x.reshape(-1, x.shape[2])
    position = bounds[:, :1] + back - 1 if reverse else bounds[:, 1:] - back
    count = bounds[:, 1:] - bounds[:, :1]
    known = back <= count
    final = tokens[position.clamp(0, max(len(tokens) - 1, 0))] if len(tokens) else x.new_zeros(arguments.state_shape)
    if initial is None:
        return torch.where(known[..., None], final, 0)
    # Row r of the new state is row r + count of the old one where the piece is that short.
    shifted = (torch.arange(rows, device=x.device) + count).clamp(max=rows - 1)
    old = initial.gather(1, shifted[..., None].expand(-1, -1, x.shape[2]))
    return torch.where(known[..., None], final, old)
