"""The tensors of one call of the selective scan, as its backends receive them, and their gradients."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.selective_scan`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    cu_seqlens: Tensor | None
    delta_softplus: bool
    reverse: bool

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """The arguments that have a gradient."""
        return (self.u, self.delta, self.A, self.B, self.C, self.D, self.z, self.delta_bias, self.initial_state)

    @property
    def sequences(self) -> int:
        """The number of sequences, each with a state of its own."""
        return self.u.shape[0] if self.cu_seqlens is None else self.cu_seqlens.numel() - 1

    @property
    def groups(self) -> int:
        """The number of groups of channels that share B and C; B and C may each be grouped, constant or neither."""
        return max(_groups(self.B), _groups(self.C))


def _groups(matrix: Tensor) -> int:
    return matrix.shape[2] if matrix.ndim == 4 else 1


class Gradients(NamedTuple):
    """Gradients of the differentiable arguments, in their order; None where the argument is None."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
