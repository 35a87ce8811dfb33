"""Normalisation layers that compute in float32 whatever they are given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError, nearest


def float32_at_least(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is where it is float64."""
    return x if x.dtype == torch.float64 else x.float()


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv:1910.07467): ``w · x / sqrt(mean(x²) + eps)``.

    (…, d_model) to the same shape and dtype; the arithmetic is float32 (float64 for float64).
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = float32_at_least(x)
        return F.rms_norm(wide, self.weight.shape, self.weight.to(wide.dtype), self.eps).to(x.dtype)


class LayerNorm(nn.Module):
    """Layer norm with weight and bias; the arithmetic is float32 (float64 for float64)."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = float32_at_least(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return F.layer_norm(wide, self.weight.shape, weight, bias, self.eps).to(x.dtype)


_NORMS = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}


def create_norm(name: str, d_model: int, eps: float = 1e-5) -> nn.Module:
    """Build ``"rmsnorm"`` or ``"layernorm"``.

    Raises:
        UserError: for an unknown name.
    """
    if name not in _NORMS:
        raise UserError(f"norm {name!r} is unknown; {nearest(name, _NORMS)}")
    return _NORMS[name](d_model, eps)
