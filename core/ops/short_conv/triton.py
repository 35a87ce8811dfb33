# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The short convolution in Triton: the forward pass, taps read straight from the input wherever it lies in memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._packing import sequence_offsets
from .._triton import silu
from .arguments import Arguments
from .triton_backward import backward

__all__ = ["backward", "forward"]


_TOKENS = 16  # of a program


@triton.jit
def _convolve(
    x, weight, bias, initial, starts, ends, numbers, y,
    length, dim, token_blocks, channel_blocks, x_batch, x_token,
    WIDTH: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """A few tokens of a block of channels: every input is loaded once, before the first is used."""
    program = tl.program_id(0).to(tl.int64)
    channel = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)
    program = program // channel_blocks
    first = (program % token_blocks) * TOKENS
    batch = program // token_blocks
    here = channel < dim
    x += batch * x_batch
    y += batch * length * dim
    # Inputs of the tokens, and of the WIDTH - 1 before the first (after the last with REVERSE).
    lowest = first
    if not REVERSE:
        lowest = first - (WIDTH - 1)
    inputs = ()
    for k in tl.static_range(TOKENS + WIDTH - 1):
        source = lowest + k
        there = (source >= 0) & (source < length)
        inputs = inputs + (tl.load(x + source * x_token + channel, here & there, 0.0),)
    taps = ()
    for tap in tl.static_range(WIDTH):
        taps = taps + (tl.load(weight + tap * dim + channel, here, 0.0).to(tl.float32),)
    added = tl.zeros((CHANNELS,), tl.float32)
    if HAS_BIAS:
        added = tl.load(bias + channel, here, 0.0).to(tl.float32)
    for j in tl.static_range(TOKENS):
        token = first + j
        valid = token < length
        begin, end, sequence = tl.zeros_like(token), tl.zeros_like(token) + length, batch
        if PACKED:
            begin = tl.load(starts + token, valid, 0)
            end = tl.load(ends + token, valid, 0)
            sequence = tl.load(numbers + token, valid, 0)
        total = added
        for tap in tl.static_range(WIDTH):
            if REVERSE:
                value = inputs[j + WIDTH - 1 - tap].to(tl.float32)
                source = token + (WIDTH - 1 - tap)
                known = source < end
                row = (WIDTH - 2) - (source - end)
            else:
                value = inputs[j + tap].to(tl.float32)
                source = token - (WIDTH - 1 - tap)
                known = source >= begin
                row = source - begin + (WIDTH - 1)
            if PACKED:
                value = tl.where(known, value, 0.0)
            if HAS_INITIAL:
                place = (sequence * (WIDTH - 1) + row) * dim + channel
                value += tl.load(initial + place, here & valid & (known == 0), 0.0).to(tl.float32)
            total += taps[tap] * value
        if SILU:
            total = silu(total)
        tl.store(y + token * dim + channel, total.to(y.dtype.element_ty), here & valid)


def forward(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the final states."""
    x, weight, bias, initial, cu_seqlens, use_silu, reverse = arguments
    batch, length, dim = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    weight = weight.T.contiguous()
    initial = None if initial is None else initial.contiguous()
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    starts = ends = numbers = x
    if cu_seqlens is not None:
        sequence_offsets("short_conv", cu_seqlens, 1, length)  # checks the values
        offsets = cu_seqlens.long()
        numbers = torch.bucketize(torch.arange(length, device=x.device), offsets[1:], right=True)
        starts, ends = offsets[numbers], offsets[numbers + 1]
    if y.numel():
        channels = min(256, triton.next_power_of_2(dim))
        token_blocks, channel_blocks = triton.cdiv(length, _TOKENS), triton.cdiv(dim, channels)
        _convolve[(batch * token_blocks * channel_blocks,)](
            x, weight, x if bias is None else bias, x if initial is None else initial, starts, ends, numbers, y,
            length, dim, token_blocks, channel_blocks, x.stride(0), x.stride(1),
            WIDTH=len(weight), TOKENS=_TOKENS, CHANNELS=channels,
            HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None, PACKED=cu_seqlens is not None,
            REVERSE=reverse, SILU=use_silu, num_warps=1,
        )  # fmt: skip
    return y, _final(arguments)


def _final(arguments: Arguments) -> Tensor:
    """The last inputs of every sequence in the order of the scan, from the initial state where they are too few."""
    x, _, _, initial, cu_seqlens, _, reverse = arguments
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
