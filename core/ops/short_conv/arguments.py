"""The tensors of one call of the short convolution, as its backends receive them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.short_conv`."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_state: Tensor | None
    cu_seqlens: Tensor | None
    silu: bool
    reverse: bool
    want_final: bool = True
    """Whether the final states are needed; without, an empty tensor may stand for them."""

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """The arguments that have a gradient."""
        return (self.x, self.weight, self.bias, self.initial_state)

    @property
    def sequences(self) -> int:
        """The number of sequences, each with a state of its own."""
        return self.x.shape[0] if self.cu_seqlens is None else self.cu_seqlens.numel() - 1

    @property
    def state_shape(self) -> tuple[int, int, int]:
        return (self.sequences, self.weight.shape[1] - 1, self.x.shape[2])

    @property
    def final_shape(self) -> tuple[int, int, int]:
        """Of the final states that the operator returns."""
        return self.state_shape if self.want_final else (0, *self.state_shape[1:])
