"""The short convolution, one sequence and tap after the other, in plain PyTorch."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dtypes import accumulation_dtype
from .._packing import sequence_offsets
from .arguments import Arguments


def run(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The definition in :func:`longscan.core.ops.short_conv`, computed as it is written. Differentiable twice."""
    x, weight, bias, initial_state, cu_seqlens, silu, reverse, _ = arguments
    length = x.shape[1]
    dtype = accumulation_dtype(x.dtype)
    width = weight.shape[1]
    packed = cu_seqlens is not None
    offsets = sequence_offsets("short_conv", cu_seqlens, 1, length) if packed else [0, length]
    if initial_state is None:
        initial_state = x.new_zeros(arguments.state_shape)
    outputs, finals = [], []
    for index, (begin, end) in enumerate(pairwise(offsets)):
        state = initial_state[index : index + 1] if packed else initial_state
        piece = x[:, begin:end].to(dtype)
        seen = torch.cat([state.to(dtype), piece.flip(1) if reverse else piece], dim=1)
        y = torch.zeros_like(piece)
        for tap in range(width):
            y = y + weight[:, tap].to(dtype) * seen[:, tap : tap + end - begin]
        if bias is not None:
            y = y + bias.to(dtype)
        outputs.append(y.flip(1) if reverse else y)
        finals.append(seen[:, end - begin :])
    y = torch.cat(outputs, dim=1)
    return (F.silu(y) if silu else y).to(x.dtype), torch.cat(finals).to(x.dtype)
