# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""One step of the short convolution in Triton: window, taps, bias, activation and the shifted state in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import silu
from .arguments import Arguments

_CHANNELS = 128  # of a program


@triton.jit
def _step(
    state, x, weight, bias, y, dim, state_batch, state_row, state_channel, x_batch, x_channel, weight_channel,
    weight_tap, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    here = channel < dim
    newest = tl.load(x + batch * x_batch + channel * x_channel, here, 0.0)
    taps = weight + channel * weight_channel
    total = newest.to(tl.float32) * tl.load(taps + (WIDTH - 1) * weight_tap, here, 0.0).to(tl.float32)
    row = state + batch * state_batch + channel.to(tl.int64) * state_channel
    for tap in tl.static_range(WIDTH - 1):
        kept = tl.load(row + tap * state_row, here, 0.0)
        total += kept.to(tl.float32) * tl.load(taps + tap * weight_tap, here, 0.0).to(tl.float32)
        if tap > 0:
            tl.store(row + (tap - 1) * state_row, kept, here)
    if WIDTH > 1:
        tl.store(row + (WIDTH - 2) * state_row, newest.to(state.dtype.element_ty), here)
    if HAS_BIAS:
        total += tl.load(bias + channel, here, 0.0).to(tl.float32)
    if SILU:
        total = silu(total)
    tl.store(y + batch * dim + channel, total.to(y.dtype.element_ty), here)


def run(arguments: Arguments) -> Tensor:
    """Advance the state in place and return y."""
    state, x, weight, bias, use_silu = arguments
    batch, dim = x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    bias = bias if bias is None else bias.contiguous()
    _step[(batch, triton.cdiv(dim, _CHANNELS))](
        state, x, weight, x if bias is None else bias, y, dim, *state.stride(), *x.stride(), *weight.stride(),
        WIDTH=weight.shape[1], CHANNELS=_CHANNELS, HAS_BIAS=bias is not None, SILU=use_silu, num_warps=1,
    )  # fmt: skip
    return y
