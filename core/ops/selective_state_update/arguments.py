"""The tensors of one step of the selective scan, as its backends receive them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.selective_state_update`."""

    state: Tensor
    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that were given."""
        return [value for value in self if isinstance(value, Tensor)]
