"""The Vandermonde sums as they are written, with the whole table of powers."""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import Arguments, MomentArguments


def _powers(log_factors: Tensor, length: int) -> Tensor:
    """(dim, state, length) in complex128."""
    position = torch.arange(length, device=log_factors.device, dtype=torch.float64)
    return torch.exp(log_factors.to(torch.complex128)[..., None] * position)


def run(arguments: Arguments) -> Tensor:
    """The definition in :func:`longscan.core.ops.vandermonde`, in float64. Differentiable twice."""
    coefficients, log_factors, length = arguments
    powers = _powers(log_factors, length)
    kernel = 2 * torch.einsum("chn,hnl->chl", coefficients.to(powers.dtype), powers).real
    return kernel.to(arguments.dtype)


def run_moments(arguments: MomentArguments) -> Tensor:
    """The definition in :func:`longscan.core.ops.vandermonde_moments`, in float64. Differentiable twice."""
    powers = _powers(arguments.log_factors, arguments.signal.shape[2])
    return torch.einsum("chl,hnl->chn", arguments.signal.to(powers.dtype), powers).to(arguments.dtype)
