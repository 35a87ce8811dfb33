"""The pooling of SaShiMi: linear maps between sampling rates (Goel et al. 2022, arXiv:2202.09729, section 4.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PoolLinear(nn.Module):
    """A linear map, with ``weight_norm`` as ``weight_g · weight_v / |weight_v|`` row by row (published names).

    Args:
        inputs: features that come in.
        outputs: features that go out.
        weight_norm: train direction and length of each row apart (Salimans and Kingma 2016, arXiv:1602.07868).
    """

    def __init__(self, inputs: int, outputs: int, weight_norm: bool) -> None:
        super().__init__()
        weight = torch.empty(outputs, inputs)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.weight_norm = weight_norm
        if weight_norm:
            self.weight_g = nn.Parameter(weight.norm(dim=1, keepdim=True))
            self.weight_v = nn.Parameter(weight)
        else:
            self.weight = nn.Parameter(weight)
        bound = 1 / math.sqrt(inputs)
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def matrix(self) -> Tensor:
        """The effective weight (outputs, inputs)."""
        if not self.weight_norm:
            return self.weight
        return self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        return F.linear(x, self.matrix(), self.bias)


class DownPool(nn.Module):
    """``pool`` positions of ``d_model`` features become one of ``expand · d_model``.

    (batch, length, d_model) to (batch, length / pool, expand · d_model); length is a multiple of ``pool``.
    """

    def __init__(self, d_model: int, expand: int, pool: int, weight_norm: bool) -> None:
        super().__init__()
        self.pool, self.d_output = pool, d_model * expand
        self.linear = PoolLinear(d_model * pool, self.d_output, weight_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map features outer, positions inner."""
        return self.linear(x.unflatten(1, (-1, self.pool)).transpose(2, 3).flatten(2))


class UpPool(nn.Module):
    """One position of ``d_model`` features becomes ``pool`` of ``d_model / expand``, the inverse of :class:`DownPool`.

    With ``shift`` the output is delayed by one coarse position, so that no output depends on later inputs:
    a coarse position is known only once all of its ``pool`` fine ones have been read.
    """

    def __init__(self, d_model: int, expand: int, pool: int, weight_norm: bool, shift: bool = True) -> None:
        super().__init__()
        self.pool, self.shift, self.d_output = pool, shift, d_model // expand
        self.linear = PoolLinear(d_model, self.d_output * pool, weight_norm)

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """(batch, length, d_model) to (batch, length · pool, d_model / expand).

        Args:
            x: coarse sequence.
            before: (batch, d_output · pool), what the coarse position before the first one gave; zeros by default.
        """
        return self.spread(self.delay(self.linear(x), before))

    def delay(self, y: Tensor, before: Tensor | None) -> Tensor:
        """Shift (batch, length, d_output · pool) by one position."""
        if not self.shift:
            return y
        first = torch.zeros_like(y[:, :1]) if before is None else before[:, None].to(y.dtype)
        return torch.cat([first, y[:, :-1]], dim=1)

    def spread(self, y: Tensor) -> Tensor:
        """(batch, length, d_output · pool) to (batch, length · pool, d_output)."""
        return y.unflatten(2, (self.d_output, self.pool)).transpose(2, 3).flatten(1, 2)
