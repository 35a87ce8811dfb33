"""The tensors of one call of the long convolution, as its backends receive them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.long_conv`."""

    u: Tensor
    kernel: Tensor
    skip: Tensor | None
    gate_in: Tensor | None
    gate_out: Tensor | None
    causal: bool
    reverse: bool

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """The arguments that have a gradient."""
        return (self.u, self.kernel, self.skip, self.gate_in, self.gate_out)

    @property
    def lags(self) -> range:
        """The lags at which the kernel can meet the sequence; the tap of a lag is at ``lag + zero``."""
        length, taps = self.u.shape[1], self.kernel.shape[1]
        return range(max(-self.zero, 1 - length), min(taps - self.zero, length))

    @property
    def zero(self) -> int:
        """The index of lag 0 in the kernel."""
        return 0 if self.causal else self.kernel.shape[1] // 2
