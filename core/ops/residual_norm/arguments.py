"""The tensors and options of one call of the residual norm, as its backends receive them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.residual_norm`."""

    x: Tensor
    residual: Tensor | None
    gate: Tensor | None
    weight: Tensor
    bias: Tensor | None
    layer: bool
    norm_before_gate: bool
    eps: float
    dtype: torch.dtype

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """The arguments that have a gradient."""
        return (self.x, self.residual, self.gate, self.weight, self.bias)

    @property
    def stream_dtype(self) -> torch.dtype:
        """The dtype of the sum that is normalised."""
        return self.x.dtype if self.residual is None else torch.promote_types(self.x.dtype, self.residual.dtype)
