"""The tensors of one step of the short convolution, as its backends receive them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.short_conv_update`."""

    state: Tensor
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    silu: bool

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that were given."""
        return [value for value in self if isinstance(value, Tensor)]
