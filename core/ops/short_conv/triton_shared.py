# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""What both passes of the short convolution share: taps of a block of channels, and where packed sequences lie."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._packing import sequence_offsets
from .arguments import Arguments


@triton.jit
def load_taps(weight, channel, here, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """The taps of some channels, each (1, channels), from (dim, WIDTH) in memory, which is read along its rows."""
    tap = tl.arange(0, PADDED)[None, :]
    place = channel[:, None] * WIDTH + tap
    rows = tl.load(weight + place, here[:, None] & (tap < WIDTH), 0.0).to(tl.float32)
    taps = ()
    for number in tl.static_range(WIDTH):
        taps = taps + (tl.sum(tl.where(tap == number, rows, 0.0), axis=1)[None, :],)
    return taps


@triton.jit
def load_steps(at, step, left, here, TOKENS: tl.constexpr):
    """``TOKENS`` vectors, ``step`` elements apart from ``at`` on; zero where none are ``left``."""
    values = ()
    for j in tl.static_range(TOKENS):
        values = values + (tl.load(at + j * step, here & (left > j), 0.0),)
    return values


@triton.jit
def read(
    value, tap, position, sequence, initial, channel, there,
    BACK: tl.constexpr, DIM: tl.constexpr, HAS_INITIAL: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """What a tap reads, ``BACK - tap`` steps back: in a packed row perhaps the state before its sequence."""
    value = value.to(tl.float32)
    if PACKED and tap < BACK:
        known = position >= BACK - tap
        value = tl.where(known, value, 0.0)
        if HAS_INITIAL:
            place = (sequence * BACK + position + tap) * DIM + channel
            value += tl.load(initial + place, there & (known == 0), 0.0).to(tl.float32)
    return value


def bounds_of(arguments: Arguments) -> Tensor:
    """The first token of every sequence and the one after its last, in the flattened (batch * length) axis."""
    batch, length, _ = arguments.x.shape
    if arguments.cu_seqlens is None:
        first = torch.arange(batch, device=arguments.x.device) * length
        return torch.stack([first, first + length], dim=1)
    sequence_offsets("short_conv", arguments.cu_seqlens, 1, length)  # checks the values
    offsets = arguments.cu_seqlens.long()
    return torch.stack([offsets[:-1], offsets[1:]], dim=1)


def packed_places(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """For every token of a packed row its step in its sequence (int32), and the number of the sequence."""
    assert arguments.cu_seqlens is not None
    bounds = bounds_of(arguments)
    token = torch.arange(arguments.x.shape[1], device=bounds.device)
    numbers = torch.bucketize(token, arguments.cu_seqlens[1:].long(), right=True)
    steps = bounds[numbers, 1] - 1 - token if arguments.reverse else token - bounds[numbers, 0]
    return steps.int(), numbers


def aligned(tensor: Tensor) -> bool:
    """Whether several channels at once can be loaded from every token."""
    return tensor.data_ptr() % 16 == 0 and all(step % 16 == 0 for step in tensor.stride()[:2])


def contiguous(tensor: Tensor | None, like: Tensor) -> Tensor:
    """Contiguous; ``like`` stands in for what is None."""
    return like if tensor is None else tensor.contiguous()
