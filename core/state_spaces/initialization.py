"""Initial values of A, B and P by name, for the diagonal (S4D, arXiv:2206.11893) and the DPLR (S4) parametrisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UserError, nearest
from .dplr import diagonal_plus_low_rank
from .hippo import MEASURES


def _lin(k: Tensor, size: int) -> Tensor:
    return math.pi * k


def _inv(k: Tensor, size: int) -> Tensor:
    return size / math.pi * (size / (2 * k + 1) - 1)


def _inv2(k: Tensor, size: int) -> Tensor:
    return size / math.pi * (size / (k + 1) - 1)


def _quad(k: Tensor, size: int) -> Tensor:
    return (1 + 2 * k) ** 2 / math.pi


def _random(k: Tensor, size: int) -> Tensor:
    return torch.exp(torch.randn_like(k))


#: Frequencies of the modes k = 0 … n - 1, given k and the size of the real state; the real part is -1/2.
_FREQUENCIES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "diag-lin": _lin,
    "diag-inv": _inv,
    "diag-inv2": _inv2,
    "diag-quad": _quad,
    "diag-rand": _random,
}
#: Names that stand for several, dealt out over equal parts of the copies.
_COMBINATIONS: dict[str, tuple[str, ...]] = {
    "hippo": ("legs", "fourier"),
    "diag": ("diag-inv", "diag-lin"),
    "all": ("legs", "fourier", "diag-inv", "diag-lin"),
}
#: Names that :func:`initialize` knows. S4D's own names ("lin", "inv", …) work too.
INITIALIZATIONS = (*MEASURES, *_FREQUENCIES, "diag-real", "diag-legs", *_COMBINATIONS)
B_INITIALIZATIONS = ("constant", "random", "alternating", "unit-cw", "unit-ccw")


def initialize(
    name: str, size: int, copies: int = 1, rank: int = 1, B_init: str = "constant"
) -> tuple[Tensor, Tensor, Tensor]:
    """Return A (copies, n), B (copies, n) and P (rank, copies, n), complex128, with n = size / 2.

    Imaginary parts are not positive. P is zero for the diagonal initialisations (``diag-…``).

    Args:
        name: one of ``INITIALIZATIONS``; several are dealt out over the copies (``diag``: half inv, half lin).
        size: N, the size of the real state, even.
        copies: independent sets of A, B and P.
        rank: of the DPLR correction.
        B_init: B of the diagonal initialisations: ``constant`` (1), ``random``, ``alternating`` (±1), ``unit-cw`` or
            ``unit-ccw`` (roots of unity); LegS keeps its own.

    Raises:
        UserError: for unknown names, an odd size, or copies that the names do not divide.
    """
    if size < 2 or size % 2:
        raise UserError(f"the state size is {size}; expected an even number of at least 2")
    if B_init not in B_INITIALIZATIONS:
        raise UserError(f"B_init is {B_init!r}; {nearest(B_init, B_INITIALIZATIONS)}")
    parts = _COMBINATIONS.get(name, (name,))
    if copies % len(parts):
        raise UserError(f"initialisation {name!r} needs a multiple of {len(parts)} copies of A, given {copies}")
    each = [_one(part, size, copies // len(parts), rank, B_init) for part in parts]
    A, B, P = zip(*each, strict=True)
    return torch.cat(A), torch.cat(B), torch.cat(P, dim=1)


def _one(name: str, size: int, copies: int, rank: int, B_init: str) -> tuple[Tensor, Tensor, Tensor]:
    name = name if name in INITIALIZATIONS else f"diag-{name}"
    if name not in INITIALIZATIONS:
        raise UserError(f"initialisation {name.removeprefix('diag-')!r} is unknown; {nearest(name, INITIALIZATIONS)}")
    half = size // 2
    if name in MEASURES:
        # A diagonal kernel (rank 0) drops P, whose rank LegT needs to be 2.
        A, P, B = diagonal_plus_low_rank(name, size, rank or 2)
        P = P[:rank]
        return A.expand(copies, half), B.expand(copies, half), P[:, None].expand(rank, copies, half)
    no_correction = torch.zeros(rank, copies, half, dtype=torch.complex128)
    if name == "diag-legs":
        A, _, B = diagonal_plus_low_rank("legs", size)
        return A.expand(copies, half), B.expand(copies, half), no_correction
    k = torch.arange(half, dtype=torch.float64).expand(copies, half)
    if name == "diag-real":
        A = torch.complex(-(k + 1), torch.zeros_like(k))
    else:
        A = torch.complex(torch.full_like(k, -0.5), -_FREQUENCIES[name](k, size))
    return A, _input_weights(B_init, size, k), no_correction


def _input_weights(B_init: str, size: int, k: Tensor) -> Tensor:
    one = torch.ones_like(k)
    if B_init == "random":
        return torch.randn(k.shape, dtype=torch.complex128)
    if B_init == "alternating":
        return torch.complex(1 - 2 * (k % 2), 0 * k)
    if B_init.startswith("unit"):
        return torch.polar(one, (-1 if B_init == "unit-cw" else 1) * 2 * math.pi * k / size)
    return torch.complex(one, 0 * one)
