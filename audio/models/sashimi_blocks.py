"""The residual blocks of SaShiMi: a state space layer or two linear maps behind a norm."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.mixers import SequenceMixer
from ...core.norms import LayerNorm, float32_at_least


class ScalarNorm(nn.Module):
    """Layer norm with a single scale and shift: ``s / std · (x - mean + m)`` over the features.

    The published "transposed" layer norm. It divides by the bare standard deviation, which is 0 where all features are
    equal; here 1e-12 is added to the variance.
    """

    eps = 1e-12

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(1))
        self.s = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(…, features) to the same shape; the arithmetic is float32 (float64 for float64)."""
        wide = float32_at_least(x)
        variance, mean = torch.var_mean(wide, dim=-1, unbiased=False, keepdim=True)
        return ((wide - mean + self.m) * (self.s * torch.rsqrt(variance + self.eps))).to(x.dtype)


NormName = Literal["scalar", "layer"]


def block_norm(name: str, d_model: int) -> nn.Module:
    """Build the norm of a block.

    Raises:
        UserError: for an unknown name.
    """
    if name == "scalar":
        return ScalarNorm()
    if name == "layer":
        return LayerNorm(d_model)
    raise UserError(f"norm is {name!r}; expected 'scalar' (training repository) or 'layer' (standalone model)")


class FeedForward(nn.Module):
    """``outer(gelu(inner(x)))`` position by position."""

    def __init__(self, d_model: int, expand: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(d_model, d_model * expand)
        self.outer = nn.Linear(d_model * expand, d_model)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(…, d_model) to the same shape."""
        return self.outer(F.dropout(F.gelu(self.inner(x)), self.dropout, self.training))


class ResidualBlock(nn.Module):
    """``x + layer(norm(x))``.

    Attributes:
        layer: a mixer or a :class:`FeedForward`.
    """

    def __init__(self, norm: nn.Module, layer: SequenceMixer | FeedForward) -> None:
        super().__init__()
        self.norm, self.layer = norm, layer

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) to the same shape."""
        return x + self.layer(self.norm(x))
