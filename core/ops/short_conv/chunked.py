"""The short convolution in plain PyTorch, tap by tap over whole tensors, for any device.

Inputs and states are laid into one axis, the state of each sequence before its tokens (after them with ``reverse``),
so that a tap is a shifted slice and no window of one sequence reaches into another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dtypes import accumulation_dtype
from .._packing import sequence_offsets
from .arguments import Arguments


class _Layout(NamedTuple):
    """Positions in the common axis: of tokens, of windows (their first element) and of state rows before and after."""

    size: int
    tokens: slice | Tensor
    windows: slice | Tensor
    entering: Tensor
    leaving: Tensor


def _layout(arguments: Arguments) -> _Layout:
    x, cu_seqlens, reverse = arguments.x, arguments.cu_seqlens, arguments.reverse
    length, rows = x.shape[1], arguments.weight.shape[1] - 1
    row = torch.arange(rows, device=x.device)
    if reverse:
        row = row.flip(0)
    if cu_seqlens is None:
        after = row + length
        place = slice(0, length) if reverse else slice(rows, rows + length)
        entering, leaving = (after, row) if reverse else (row, after)
        return _Layout(length + rows, place, slice(0, length), entering, leaving)
    sequence_offsets("short_conv", cu_seqlens, 1, length)  # checks the values
    position = torch.arange(length, device=x.device)
    windows = position + rows * torch.bucketize(position, cu_seqlens[1:].long(), right=True)
    bounds = cu_seqlens.long() + rows * torch.arange(cu_seqlens.numel(), device=x.device)
    before = (bounds[:-1, None] + row).flatten()
    after = (bounds[1:, None] - rows + row).flatten()
    entering, leaving = (after, before) if reverse else (before, after)
    tokens = windows if reverse else windows + rows
    return _Layout(length + rows * arguments.sequences, tokens, windows, entering, leaving)


def _extend(arguments: Arguments, layout: _Layout) -> tuple[Tensor, Tensor]:
    """The common axis (batch, size, dim), and the taps (width, dim) in its order."""
    x, weight, _, initial_state, *_ = arguments
    dtype = accumulation_dtype(x.dtype)
    batch, _, dim = x.shape
    extended = x.new_zeros(batch, layout.size, dim, dtype=dtype)
    extended[:, layout.tokens] = x.to(dtype)
    if initial_state is not None:
        extended[:, layout.entering] = initial_state.to(dtype).reshape(batch, -1, dim)
    taps = weight.to(dtype).T
    return extended, taps.flip(0) if arguments.reverse else taps


def _convolve(arguments: Arguments, layout: _Layout, extended: Tensor, taps: Tensor) -> Tensor:
    """The output before the activation, (batch, length, dim)."""
    span = layout.size - (len(taps) - 1)
    y = extended[:, :span] * taps[0]
    for tap in range(1, len(taps)):
        y.addcmul_(extended[:, tap : tap + span], taps[tap])
    if arguments.bias is not None:
        y += arguments.bias.to(y.dtype)
    return y[:, layout.windows]


def forward(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the final states, in working precision."""
    layout = _layout(arguments)
    extended, taps = _extend(arguments, layout)
    y = _convolve(arguments, layout, extended, taps)
    y = F.silu(y) if arguments.silu else y
    if not arguments.want_final:
        return y, y.new_empty(arguments.final_shape)
    return y, extended[:, layout.leaving].reshape(arguments.state_shape)


def backward(arguments: Arguments, grad_y: Tensor, grad_final: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight, bias and the initial state, in working precision."""
    layout = _layout(arguments)
    extended, taps = _extend(arguments, layout)
    span = layout.size - (len(taps) - 1)
    grad = grad_y.to(extended.dtype)
    if arguments.silu:
        grad = torch.ops.aten.silu_backward(grad, _convolve(arguments, layout, extended, taps))
    batch, _, dim = grad.shape
    spread = extended.new_zeros(batch, span, dim)
    spread[:, layout.windows] = grad
    grad_extended = torch.zeros_like(extended)
    grad_taps = torch.empty_like(taps)
    for tap in range(len(taps)):
        grad_extended[:, tap : tap + span].addcmul_(spread, taps[tap])
        grad_taps[tap] = (spread * extended[:, tap : tap + span]).sum((0, 1))
    if grad_final is not None:
        grad_extended.index_add_(1, layout.leaving, grad_final.to(grad.dtype).reshape(batch, -1, dim))
    grad_weight = (grad_taps.flip(0) if arguments.reverse else grad_taps).T
    grad_initial = grad_extended[:, layout.entering].reshape(arguments.state_shape)
    return grad_extended[:, layout.tokens], grad_weight, grad.sum((0, 1)), grad_initial
