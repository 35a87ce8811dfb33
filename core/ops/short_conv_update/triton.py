# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""One step of the short convolution in Triton: window, taps, bias, activation and the shifted state in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import ceil_div, silu
from .arguments import Arguments

_CHANNELS = 128  # of a program


@triton.jit
def _step(
    state, x, weight, bias, y, state_batch, x_batch, dim: tl.constexpr,
    state_row: tl.constexpr, state_channel: tl.constexpr, x_channel: tl.constexpr,
    weight_channel: tl.constexpr, weight_tap: tl.constexpr,
    WIDTH: tl.constexpr, CHANNELS: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    here = channel < dim
    row = state + batch * state_batch + channel.to(tl.int64) * state_channel
    taps = weight + channel * weight_channel
    # All loads come before the first store, past which the compiler would make them wait.
    kept, factors = (), ()
    for tap in tl.static_range(WIDTH - 1):
        kept = kept + (tl.load(row + tap * state_row, here, 0.0),)
    newest = tl.load(x + batch * x_batch + channel * x_channel, here, 0.0)
    for tap in tl.static_range(WIDTH):
        factors = factors + (tl.load(taps + tap * weight_tap, here, 0.0).to(tl.float32),)
    total = newest.to(tl.float32) * factors[WIDTH - 1]
    if HAS_BIAS:
        total += tl.load(bias + channel, here, 0.0).to(tl.float32)
    for tap in tl.static_range(WIDTH - 1):
        total += kept[tap].to(tl.float32) * factors[tap]
        if tap > 0:
            tl.store(row + (tap - 1) * state_row, kept[tap], here)
    if WIDTH > 1:
        tl.store(row + (WIDTH - 2) * state_row, newest.to(state.dtype.element_ty), here)
    if SILU:
        total = silu(total)
    tl.store(y + batch * dim + channel, total.to(y.dtype.element_ty), here)


def run(arguments: Arguments) -> Tensor:
    """Advance the state in place and return y."""
    state, x, weight, bias, use_silu = arguments
    batch, dim = x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    bias = bias if bias is None else bias.contiguous()
    _step[(batch, ceil_div(dim, _CHANNELS))](
        state, x, weight, x if bias is None else bias, y,
        state.stride(0), x.stride(0), dim, *state.stride()[1:], x.stride(1), *weight.stride(),
        WIDTH=weight.shape[1], CHANNELS=_CHANNELS, HAS_BIAS=bias is not None, SILU=use_silu, num_warps=1,
    )  # fmt: skip
    return y
