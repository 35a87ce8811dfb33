"""One step of the selective scan in plain PyTorch, for any device and dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dtypes import accumulation_dtype
from .arguments import Arguments


def run(arguments: Arguments) -> Tensor:
    """Advance the state in place and return y."""
    state, u, delta, A, B, C, D, z, delta_bias, delta_softplus = arguments
    real = accumulation_dtype(u.dtype)
    x, dt = u.to(real), delta.to(real)
    if delta_bias is not None:
        dt = dt + delta_bias.to(real)
    if delta_softplus:
        dt = F.softplus(dt)
    B_t, C_t = _per_channel(B, u), _per_channel(C, u)
    state.mul_(torch.exp(dt[..., None] * A.to(state.dtype))).add_((dt * x)[..., None] * B_t.to(state.dtype))
    y = (state * C_t.to(state.dtype)).sum(-1)
    if y.is_complex():
        y = 2 * y.real
    if D is not None:
        y = y + D.to(real) * x
    if z is not None:
        y = y * F.silu(z.to(real))
    return y.to(u.dtype)


def _per_channel(matrix: Tensor, u: Tensor) -> Tensor:
    """B or C in any of its layouts, so that it broadcasts with (batch, dim, state)."""
    batch, dim = u.shape
    if matrix.ndim == 3:
        return matrix.repeat_interleave(dim // matrix.shape[1], dim=1)
    return matrix[:, None] if matrix.shape[0] == batch else matrix
