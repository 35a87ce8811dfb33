"""The frequency responses of S4 beside the table of all fractions and KeOps; see ``vandermonde`` beside this module."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..ops import cauchy
from .contests import Contest, Options
from .vandermonde import LARGE, SMALL, compared, keops, modes


def _ours(coefficients: Tensor, poles: Tensor, positions: Tensor) -> Tensor:
    return cauchy(coefficients, poles, positions)


def _naive(coefficients: Tensor, poles: Tensor, positions: Tensor) -> Tensor:
    v, p = coefficients[..., None], poles[..., None]
    node = 1j * positions
    return (v / (node - p) + v.conj() / (node - p.conj())).sum(2)


def _keops(coefficients: Tensor, poles: Tensor, positions: Tensor) -> Tensor:
    formula, node = "ComplexDivide(v, l - p)", 1j * positions
    both = keops(formula, coefficients, poles, node) + keops(formula, coefficients.conj(), poles.conj(), node)
    return torch.view_as_complex(both)


def contests(options: Options) -> Iterator[Contest]:
    """Forward and, if asked for, with backward, at the length / 2 + 1 frequencies of a real kernel but the highest."""
    kernels = {"ours": _ours, "naive": _naive, "keops": _keops}
    for dim, state, length in options.choose(LARGE, SMALL):
        poles, number = modes(options, dim, state), length // 2 + 1
        frequencies = 2 * torch.tan(torch.linspace(0, 0.49 * math.pi, number, device=options.device))
        for backward in options.passes:
            yield Contest(
                "cauchy",
                {"dim": dim, "state": state, "length": length},
                backward,
                *compared(options, kernels, poles, frequencies, backward),
                bytes_moved=8 * dim * number + 16 * dim * state,
            )
