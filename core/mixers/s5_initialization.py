"""The initial state space of S5 (Smith et al. 2023, arXiv:2208.04933, section 3.2 and appendix B)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..state_spaces.hippo import hippo, rank_correction


def hippo_normal_eigensystem(size: int) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (size,) and eigenvectors (size, size) of HiPPO-N, complex128, by imaginary part.

    HiPPO-N is the normal part of HiPPO-LegS, without its correction of rank 1: -1/2 on the diagonal, skew-symmetric off
    it. Its eigenvalues all have the real part -1/2.
    """
    P = rank_correction("legs", size)
    normal = hippo("legs", size)[0] + P.T @ P
    # -i times the skew part is Hermitian: eigenvalues exactly imaginary, eigenvectors orthonormal.
    imaginary, vectors = torch.linalg.eigh(-1j * (normal - normal.T) / 2)
    return torch.complex(normal.diagonal().mean().expand(size).contiguous(), imaginary), vectors


def block_diagonal_hippo(d_state: int, blocks: int, conjugate_symmetry: bool) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (stored) and eigenvectors (d_state, stored) of ``blocks`` copies of HiPPO-N.

    With conjugate symmetry, the half of negative imaginary part of each block is stored.

    Raises:
        ValueError: if the blocks do not divide the states, or a block is of odd size.
    """
    if d_state < 1 or blocks < 1 or d_state % blocks:
        raise ValueError(f"d_state {d_state} is no multiple of blocks {blocks}")
    size = d_state // blocks
    if size % 2:
        raise ValueError(f"d_state {d_state} in {blocks} blocks makes blocks of {size}; expected an even size")
    eigenvalues, vectors = hippo_normal_eigensystem(size)
    stored = size // 2 if conjugate_symmetry else size
    return eigenvalues[:stored].repeat(blocks), torch.block_diag(*[vectors[:, :stored]] * blocks)


def lecun_normal(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Draw from a normal distribution cut off at two standard deviations, of variance 1 / fan_in; float64."""
    # The standard deviation of a standard normal cut off at ±2.
    std = 1 / math.sqrt(fan_in) / 0.87962566103423978
    return torch.nn.init.trunc_normal_(torch.empty(shape, dtype=torch.float64), std=std, a=-2 * std, b=2 * std)


def initial_B(vectors: Tensor, d_model: int) -> Tensor:
    """Return V^-1 B (stored, d_model) for a real LeCun-normal B (d_state, d_model); V is orthonormal."""
    d_state = vectors.shape[0]
    return vectors.conj().T @ lecun_normal((d_state, d_model), d_state).to(vectors.dtype)


def initial_C(
    vectors: Tensor,
    d_model: int,
    kind: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"],
) -> Tensor:
    """Return C (d_model, stored), complex.

    ``trunc_standard_normal`` is, whatever its published name says, LeCun-normal row by row, and ``lecun_normal`` over
    the whole array (its variance is d_model times smaller); both are complex (d_model, d_state), then multiplied by V.
    ``complex_normal`` is drawn for the stored states directly, with variance 1/2 of each part.

    Raises:
        ValueError: for another kind.
    """
    d_state, stored = vectors.shape
    if kind == "complex_normal":
        return torch.randn(d_model, stored, dtype=vectors.dtype)
    if kind not in ("trunc_standard_normal", "lecun_normal"):
        raise ValueError(f"C_init is {kind!r}; expected 'trunc_standard_normal', 'lecun_normal' or 'complex_normal'")
    fan_in = d_state if kind == "trunc_standard_normal" else d_state * d_model
    return torch.view_as_complex(lecun_normal((d_model, d_state, 2), fan_in)) @ vectors
