"""The long convolution, one lag after the other, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .._dtypes import accumulation_dtype
from .arguments import Arguments


def run(arguments: Arguments) -> Tensor:
    """The definition in :func:`longscan.core.ops.long_conv`, computed as it is written. Differentiable twice."""
    u, kernel, skip, gate_in, gate_out, _, reverse = arguments
    dtype = accumulation_dtype(u.dtype)
    v, kernel = u.to(dtype), kernel.to(dtype)
    if gate_in is not None:
        v = v * gate_in.to(dtype)
    y = torch.zeros_like(v) if skip is None else skip.to(dtype) * v
    for lag in arguments.lags:
        y = y + kernel[:, lag + arguments.zero] * _shifted(v, -lag if reverse else lag)
    if gate_out is not None:
        y = y * gate_out.to(dtype)
    return y.to(u.dtype)


def _shifted(v: Tensor, lag: int) -> Tensor:
    """v_{t - lag}, zero outside."""
    batch, length, dim = v.shape
    zeros = v.new_zeros(batch, abs(lag), dim)
    return torch.cat([zeros, v[:, : length - lag]] if lag >= 0 else [v[:, -lag:], zeros], dim=1)
