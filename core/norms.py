"""Normalisation layers that compute in float32 whatever they are given."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .errors import UserError, nearest
from .ops import residual_norm


def float32_at_least(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is where it is float64."""
    return x if x.dtype == torch.float64 else x.float()


class _Norm(nn.Module):
    """What both norms share: a weight, and the addition to a residual stream before the norm."""

    kind: Literal["rms", "layer"]
    bias: nn.Parameter | None

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(
        self, x: Tensor, branch: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Normalise the last dimension of ``x``, in ``dtype`` (default: that of ``x``).

        With ``branch``, what a layer adds to the stream ``x``, the sum is normalised and returned as well, in the
        wider of both dtypes: on a GPU the addition and the norm are one pass over memory.
        """
        if branch is None:
            return residual_norm(x, self.weight, self.bias, kind=self.kind, eps=self.eps, dtype=dtype)
        return residual_norm(
            branch,
            self.weight,
            self.bias,
            x,
            kind=self.kind,
            eps=self.eps,
            return_residual=True,
            dtype=dtype or x.dtype,
        )


class RMSNorm(_Norm):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv:1910.07467): ``w · x / sqrt(mean(x²) + eps)``.

    (…, d_model) to the same shape; the arithmetic is float32 (float64 for float64).
    """

    kind = "rms"
    bias = None


class LayerNorm(_Norm):
    """Layer norm with weight and bias; the arithmetic is float32 (float64 for float64)."""

    kind = "layer"

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__(d_model, eps)
        self.bias = nn.Parameter(torch.zeros(d_model))


_NORMS = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}


def create_norm(name: str, d_model: int, eps: float = 1e-5) -> nn.Module:
    """Build ``"rmsnorm"`` or ``"layernorm"``.

    Raises:
        UserError: for an unknown name.
    """
    if name not in _NORMS:
        raise UserError(f"norm {name!r} is unknown; {nearest(name, _NORMS)}")
    return _NORMS[name](d_model, eps)
