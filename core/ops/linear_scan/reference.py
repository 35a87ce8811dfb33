"""The linear scan, one token after the other, in plain PyTorch."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from .._packing import sequence_offsets
from .arguments import Arguments


def run(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The definition in :func:`longscan.core.ops.linear_scan`, computed as it is written. Differentiable twice."""
    a, x, initial_state, cu_seqlens, reverse = arguments
    _, length, dim = x.shape
    dtype = arguments.state_dtype
    packed = cu_seqlens is not None
    offsets = sequence_offsets("linear_scan", cu_seqlens, 1, length) if packed else [0, length]
    if initial_state is None:
        initial_state = x.new_zeros(arguments.sequences, dim, dtype=dtype)
    outputs: list[Tensor] = [x.new_empty(0)] * length
    finals = []
    for index, (begin, end) in enumerate(pairwise(offsets)):
        h = (initial_state[index : index + 1] if packed else initial_state).to(dtype)
        for t in reversed(range(begin, end)) if reverse else range(begin, end):
            h = a[:, t].to(dtype) * h + x[:, t].to(dtype)
            outputs[t] = h
        finals.append(h)
    return torch.stack(outputs, dim=1).to(arguments.output_dtype), torch.cat(finals)
