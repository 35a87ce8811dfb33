"""The Cauchy sums as they are written, with the whole table of fractions."""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import Arguments


def run(arguments: Arguments) -> Tensor:
    """The definition in :func:`longscan.core.ops.cauchy`, in float64. Differentiable twice."""
    coefficients, poles, frequencies, scales = arguments
    wide = torch.complex128
    v, p = coefficients.to(wide)[..., None], poles.to(wide)[..., None]
    node, scale = 1j * frequencies.double(), scales.double()
    fractions = v / (node - scale * p) + v.conj() / (node - scale * p.conj())
    return fractions.sum(2).to(coefficients.dtype)
