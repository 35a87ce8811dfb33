"""One step of the short convolution in plain PyTorch, for any device and dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dtypes import accumulation_dtype
from .arguments import Arguments


def run(arguments: Arguments) -> Tensor:
    """Advance the state in place and return y."""
    state, x, weight, bias, silu = arguments
    wide = accumulation_dtype(x.dtype)
    window = torch.cat([state.to(wide), x.unsqueeze(1).to(wide)], dim=1)
    state.copy_(window[:, 1:])
    y = (window * weight.T.to(wide)).sum(1)
    if bias is not None:
        y = y + bias.to(wide)
    return (F.silu(y) if silu else y).to(x.dtype)
