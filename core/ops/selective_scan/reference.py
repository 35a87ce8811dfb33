"""The selective scan, one token after the other, in plain PyTorch."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dtypes import accumulation_dtype, complex_dtype
from .._packing import sequence_offsets
from .arguments import Arguments


def run(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The definition in :func:`longscan.core.ops.selective_scan`, computed as it is written. Differentiable twice."""
    u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, delta_softplus, reverse = arguments
    batch, length, dim = u.shape
    real = accumulation_dtype(u.dtype)
    dtype = complex_dtype(real) if A.is_complex() else real
    x, dt, A = u.to(real), delta.to(real), A.to(dtype)
    if delta_bias is not None:
        dt = dt + delta_bias.to(real)
    if delta_softplus:
        dt = F.softplus(dt)
    B_t, C_t = _per_channel(B, u).to(dtype), _per_channel(C, u).to(dtype)

    packed = cu_seqlens is not None
    offsets = sequence_offsets("selective_scan", cu_seqlens, 1, length) if packed else [0, length]
    if initial_state is None:
        initial_state = u.new_zeros(1, dim, A.shape[1], dtype=dtype)
    outputs: list[Tensor] = [u.new_empty(0)] * length
    finals = []
    for index, (begin, end) in enumerate(pairwise(offsets)):
        h = initial_state[index : index + 1] if packed and len(initial_state) > 1 else initial_state
        h = h.to(dtype).expand(batch, -1, -1)
        for t in reversed(range(begin, end)) if reverse else range(begin, end):
            decay = torch.exp(dt[:, t, :, None] * A)
            h = decay * h + (dt[:, t] * x[:, t])[:, :, None] * B_t[:, t]
            y = (h * C_t[:, t]).sum(-1)
            outputs[t] = 2 * y.real if A.is_complex() else y
        finals.append(h)
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + D.to(real) * x
    if z is not None:
        y = y * F.silu(z.to(real))
    return y.to(u.dtype), torch.cat(finals)


def _per_channel(matrix: Tensor, u: Tensor) -> Tensor:
    """B or C in any of its layouts as (batch, length, dim, state)."""
    batch, length, dim = u.shape
    if matrix.ndim == 2:
        return matrix.expand(batch, length, -1, -1)
    if matrix.ndim == 3:
        return matrix[:, :, None].expand(-1, -1, dim, -1)
    return matrix.repeat_interleave(dim // matrix.shape[2], dim=2)
