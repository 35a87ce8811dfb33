"""The tensors of one call of the Vandermonde sums, as their backends receive them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.vandermonde`."""

    coefficients: Tensor
    log_factors: Tensor
    length: int

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of the sums and of the kernels."""
        return _REAL[self.coefficients.dtype]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the kernels."""
        channels, dim, _ = self.coefficients.shape
        return channels, dim, self.length


class MomentArguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.vandermonde_moments`."""

    signal: Tensor
    log_factors: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Complex dtype of the moments."""
        return torch.complex128 if self.signal.dtype == torch.float64 else torch.complex64

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the moments."""
        return self.signal.shape[0], *self.log_factors.shape
