"""HiPPO matrices as a diagonal plus a low-rank term, in the basis of eigenvectors (S4, arXiv:2111.00396, theorem 1)."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .hippo import hippo, rank_correction


def diagonal_plus_low_rank(
    measure: str, size: int, rank: int = 1, clip_B: float | None = 2.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Lambda, P and B with A = V (diag(Lambda) - P P*) V*, one of each pair of conjugates.

    Args:
        measure: of :func:`hippo`.
        size: N, the size of the real state, even.
        rank: rows of P, at least what the measure needs.
        clip_B: bound on the imaginary part of B (2 as published), which grows with N for LegS; ``None`` leaves it.

    Returns:
        Lambda (N/2,) with imaginary parts ascending up to 0, P (rank, N/2) and B (N/2,), complex128 on the CPU. The
        phase of each eigenvector, and so of its entry in P and B, is arbitrary.

    Raises:
        UserError: as :func:`hippo` and :func:`rank_correction`.
    """
    eigenvalues, P, B = (tensor.clone() for tensor in _decompose(measure, size, rank))
    if clip_B is not None:
        B = torch.complex(B.real, B.imag.clamp(-clip_B, clip_B))
    return eigenvalues, P, B


@functools.lru_cache(maxsize=64)
def _decompose(measure: str, size: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    # What is kept must not depend on the default device of the first caller.
    with torch.device("cpu"):
        return _decompose_on_cpu(measure, size, rank)


def _decompose_on_cpu(measure: str, size: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    A, B = hippo(measure, size)
    P = rank_correction(measure, size, rank)
    normal = A + P.T @ P
    real = normal.diagonal().mean()
    skew = (normal - normal.T) / 2
    imaginary, V = torch.linalg.eigh(-1j * skew)  # ascending
    half = size // 2
    imaginary, V = imaginary[:half], V[:, :half]
    if measure in ("fout", "fourier"):
        # The constant and the empty function span the kernel: eigh may return any basis of it, even a real one.
        V = V.clone()
        V[:, -1] = 0
        V[0, -1] = math.sqrt(0.5)
        V[1, -1] = 1j * math.sqrt(0.5)
        imaginary = imaginary.clone()
        imaginary[-1] = 0
    adjoint = V.conj().T
    P = torch.einsum("nm,rm->rn", adjoint, P.to(V.dtype))
    return torch.complex(real.expand(half).contiguous(), imaginary), P, (adjoint @ B.to(V.dtype)).resolve_conj()
