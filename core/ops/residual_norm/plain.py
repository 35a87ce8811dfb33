"""The residual norm with PyTorch's own norms, which differentiate themselves: for any device and dtype."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .._dtypes import accumulation_dtype
from .arguments import Arguments


def run(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the sum."""
    x, residual, gate, weight, bias, layer, norm_before_gate, eps, dtype = arguments
    stream = x if residual is None else residual + x
    wide = accumulation_dtype(stream.dtype)
    y = stream.to(wide)
    factor = None if gate is None else F.silu(gate.to(wide))
    if factor is not None and not norm_before_gate:
        y = y * factor
    bias = None if bias is None else bias.to(wide)
    if layer:
        y = F.layer_norm(y, weight.shape, weight.to(wide), bias, eps)
    else:
        y = F.rms_norm(y, weight.shape, weight.to(wide), eps)
        y = y if bias is None else y + bias
    if factor is not None and norm_before_gate:
        y = y * factor
    return y.to(dtype), stream
