"""The tensors of one call of the Cauchy sums, as their backends receive them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.cauchy`."""

    coefficients: Tensor
    poles: Tensor
    frequencies: Tensor
    scales: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the responses."""
        return self.coefficients.shape[0], self.coefficients.shape[1], self.frequencies.shape[0]
