"""HiPPO: state equations x' = A x + B u whose state is the projection of the input's past on a basis of functions.

Gu et al. 2020 (arXiv:2008.07669) for LegS and LegT, Gu et al. 2022 (arXiv:2206.12037) for FouT. All in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import UserError, nearest


def _legs(size: int) -> tuple[Tensor, Tensor]:
    """Legendre polynomials on the whole past, exponentially warped."""
    n = torch.arange(size, dtype=torch.float64)
    roots = torch.sqrt(2 * n + 1)
    A = -torch.tril(torch.outer(roots, roots), diagonal=-1) - torch.diag(n + 1)
    return A, roots


def _legt(size: int) -> tuple[Tensor, Tensor]:
    """Legendre polynomials on a sliding window, halved as in S4."""
    n = torch.arange(size)
    roots = torch.sqrt(2.0 * n.double() + 1)
    above = torch.where((n[:, None] - n[None]) % 2 == 0, 1.0, -1.0).double()
    signs = torch.where(n[:, None] >= n[None], torch.ones_like(above), above)
    return -0.5 * torch.outer(roots, roots) * signs, 0.5 * roots


def _fout(size: int) -> tuple[Tensor, Tensor]:
    """Fourier functions on a sliding window, ordered constant, (empty), cos 1, sin 1, cos 2, sin 2 and so on."""
    B = torch.zeros(size, dtype=torch.float64)
    B[0::2] = math.sqrt(2)
    B[0] = 1
    A = torch.zeros(size, size, dtype=torch.float64)
    for frequency in range(1, size // 2):
        A[2 * frequency, 2 * frequency + 1] = -math.pi * frequency
        A[2 * frequency + 1, 2 * frequency] = math.pi * frequency
    # The other end of the window leaves as it entered.
    return A - torch.outer(B, B), B


_FAMILIES = {"legs": _legs, "legt": _legt, "fout": _fout, "fourier": _fout}
#: Names of the measures; "fourier" is "fout".
MEASURES = tuple(_FAMILIES)


def hippo(measure: str, size: int) -> tuple[Tensor, Tensor]:
    """Return A (size, size) and B (size,) of a measure, in float64.

    Args:
        measure: ``"legs"``, ``"legt"`` or ``"fout"`` (also ``"fourier"``).
        size: number of basis functions, even.

    Raises:
        UserError: for an unknown measure or an odd size.
    """
    if measure not in _FAMILIES:
        raise UserError(f"HiPPO measure {measure!r} is unknown; {nearest(measure, MEASURES)}")
    if size < 2 or size % 2:
        raise UserError(f"the state size is {size}; expected an even number of at least 2")
    return _FAMILIES[measure](size)


def rank_correction(measure: str, size: int, rank: int = 1) -> Tensor:
    """Return P (rank, size) in float64 such that A + P^T P is a multiple of the identity plus a skew matrix.

    LegS and FouT need rank 1 and LegT rank 2; further rows are zero (Gu et al. 2022, arXiv:2111.00396, appendix C).

    Raises:
        UserError: for a rank that is too small, an unknown measure or an odd size.
    """
    _, B = hippo(measure, size)
    n = torch.arange(size, dtype=torch.float64)
    if measure == "legs":
        rows = torch.sqrt(n + 0.5)[None]
    elif measure == "legt":
        entries = torch.sqrt(n + 0.5)
        odd = torch.arange(size) % 2 == 1
        rows = torch.stack([entries * odd, entries * ~odd])
    else:
        rows = B[None]
    if rank < len(rows):
        raise UserError(f"HiPPO measure {measure!r} needs a correction of rank {len(rows)}, given rank={rank}")
    return torch.cat([rows, rows.new_zeros(rank - len(rows), size)])
