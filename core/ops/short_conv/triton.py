# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The short convolution in Triton: the forward pass, taps read straight from the input wherever it lies in memory.

The backward pass is that of the plain-torch path.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._packing import sequence_offsets
from .._triton import silu
from .arguments import Arguments
from .chunked import backward

__all__ = ["backward", "forward"]


@triton.jit
def _convolve(
    x, weight, bias, initial, starts, ends, numbers, y,
    length, dim, rows, token_blocks, channel_blocks, x_batch, x_token,
    WIDTH: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    channel = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)
    program = program // channel_blocks
    token = (program % token_blocks) * TOKENS + tl.arange(0, TOKENS)
    batch = program // token_blocks
    here, valid = channel < dim, token < length
    inside = valid[:, None] & here[None, :]
    if PACKED:
        begin = tl.load(starts + token, valid, 0)
        end = tl.load(ends + token, valid, 0)
        sequence = tl.load(numbers + token, valid, 0)
    else:
        begin, end = tl.zeros_like(token), tl.zeros_like(token) + length
        sequence = tl.zeros_like(token) + batch
    total = tl.zeros((TOKENS, CHANNELS), tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + channel, here, 0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(WIDTH):
        if REVERSE:
            source = token + (WIDTH - 1 - tap)
            known = source < end
            row = (WIDTH - 2) - (source - end)
        else:
            source = token - (WIDTH - 1 - tap)
            known = source >= begin
            row = source - begin + (WIDTH - 1)
        factor = tl.load(weight + channel * WIDTH + tap, here, 0.0).to(tl.float32)
        value = tl.load(
            x + batch * x_batch + source[:, None] * x_token + channel[None, :], inside & known[:, None], 0.0
        ).to(tl.float32)
        if HAS_INITIAL:
            place = (sequence * rows + row)[:, None] * dim + channel[None, :]
            value += tl.load(initial + place, inside & (known == 0)[:, None], 0.0).to(tl.float32)
        total += factor[None, :] * value
    if SILU:
        total = silu(total)
    place = (batch * length + token)[:, None] * dim + channel[None, :]
    tl.store(y + place, total.to(y.dtype.element_ty), inside)


def forward(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the final states."""
    x, weight, bias, initial, cu_seqlens, use_silu, reverse = arguments
    batch, length, dim = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    weight = weight.contiguous()
    initial = None if initial is None else initial.contiguous()
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    starts = ends = numbers = x
    if cu_seqlens is not None:
        sequence_offsets("short_conv", cu_seqlens, 1, length)  # checks the values
        offsets = cu_seqlens.long()
        numbers = torch.bucketize(torch.arange(length, device=x.device), offsets[1:], right=True)
        starts, ends = offsets[numbers], offsets[numbers + 1]
    if y.numel():
        tokens, channels = 32, min(64, triton.next_power_of_2(dim))
        token_blocks, channel_blocks = triton.cdiv(length, tokens), triton.cdiv(dim, channels)
        _convolve[(batch * token_blocks * channel_blocks,)](
            x, weight, x if bias is None else bias, x if initial is None else initial, starts, ends, numbers, y,
            length, dim, weight.shape[1] - 1, token_blocks, channel_blocks, x.stride(0), x.stride(1),
            WIDTH=weight.shape[1], TOKENS=tokens, CHANNELS=channels,
            HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None, PACKED=cu_seqlens is not None,
            REVERSE=reverse, SILU=use_silu, num_warps=4,
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
