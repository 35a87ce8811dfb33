"""The residual norm as its formulas are written, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .._dtypes import accumulation_dtype
from .arguments import Arguments


def run(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The definition in :func:`longscan.core.ops.residual_norm`: y and the sum. Differentiable twice."""
    x, residual, gate, weight, bias, layer, norm_before_gate, eps, dtype = arguments
    stream = x if residual is None else x + residual
    wide = accumulation_dtype(stream.dtype)
    y = stream.to(wide)
    factor = None if gate is None else gate.to(wide) * torch.sigmoid(gate.to(wide))
    if factor is not None and not norm_before_gate:
        y = y * factor
    if layer:
        y = y - y.mean(-1, keepdim=True)
    y = y / torch.sqrt((y * y).mean(-1, keepdim=True) + eps) * weight.to(wide)
    if bias is not None:
        y = y + bias.to(wide)
    if factor is not None and norm_before_gate:
        y = y * factor
    return y.to(dtype), stream
