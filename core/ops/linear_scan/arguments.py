"""The tensors of one call of the linear scan, as its backends receive them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._dtypes import accumulation_dtype


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.linear_scan`."""

    a: Tensor
    x: Tensor
    initial_state: Tensor | None
    cu_seqlens: Tensor | None
    reverse: bool

    @property
    def sequences(self) -> int:
        """The number of sequences, each with a state of its own."""
        return self.x.shape[0] if self.cu_seqlens is None else self.cu_seqlens.numel() - 1

    @property
    def output_dtype(self) -> torch.dtype:
        return torch.promote_types(self.a.dtype, self.x.dtype)

    @property
    def state_dtype(self) -> torch.dtype:
        """The dtype of the recurrence and of its final states."""
        return accumulation_dtype(self.output_dtype)
