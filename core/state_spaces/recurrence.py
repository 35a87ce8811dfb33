"""A discretised state space, ready to be stepped."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Recurrence(NamedTuple):
    """The matrices of ``x' = Abar x + Bbar u,  y = 2 Re(C x)`` for one of each pair of conjugate states.

    Abar is a diagonal less a term of low rank that sees both states of a pair::

        Abar x = factor · x - sum_r left_r · 2 Re(right_r · x)

    All are complex128: an error in them would grow with the number of steps, while the state's own rounding does not.
    """

    factor: Tensor
    """(dim, state)."""
    input: Tensor
    """Bbar, (dim, state)."""
    output: Tensor
    """C, (channels, dim, state)."""
    left: Tensor
    """(rank, dim, state); rank 0 for a diagonal system."""
    right: Tensor
    """(rank, dim, state)."""

    def step(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Advance states (batch, dim, state) by one input (batch, dim); the input enters before the output.

        Returns:
            y (batch, channels, dim) in float64 and the new states in their dtype.
        """
        after = self.factor * x + self.input * u.to(torch.float64)[..., None]
        if len(self.right):
            seen = 2 * torch.einsum("rhn,bhn->rbh", self.right, x.to(self.right.dtype)).real
            after = after - torch.einsum("rbh,rhn->bhn", seen.to(after.dtype), self.left)
        y = 2 * torch.einsum("chn,bhn->bch", self.output, after).real
        return y, after.to(x.dtype)

    def detach(self) -> Recurrence:
        """The same without gradients."""
        return Recurrence(*(tensor.detach() for tensor in self))


class DenseRecurrence(NamedTuple):
    """The same system on real vectors (Re x, Im x), in float64: what powers of Abar are taken of."""

    transition: Tensor
    """Abar, (dim, 2 state, 2 state)."""
    input: Tensor
    """Bbar, (dim, 2 state)."""
    output: Tensor
    """C, (channels, dim, 2 state), the factor 2 included."""


def dense(recurrence: Recurrence) -> DenseRecurrence:
    """Write a recurrence on real vectors."""
    factor, left, right = recurrence.factor, recurrence.left, recurrence.right
    real, imaginary = torch.diag_embed(factor.real), torch.diag_embed(factor.imag)
    diagonal = torch.cat([torch.cat([real, -imaginary], dim=-1), torch.cat([imaginary, real], dim=-1)], dim=-2)
    columns = to_real(left)
    rows = output_to_real(right)
    low_rank = torch.einsum("rhn,rhm->hnm", columns, rows)
    return DenseRecurrence(diagonal - low_rank, to_real(recurrence.input), output_to_real(recurrence.output))


def to_real(x: Tensor) -> Tensor:
    """(..., state) complex to (..., 2 state) real, (Re x, Im x)."""
    return torch.cat([x.real, x.imag], dim=-1)


def from_real(x: Tensor) -> Tensor:
    """Undo :func:`to_real`."""
    return torch.complex(*(part.contiguous() for part in x.chunk(2, dim=-1)))


def output_to_real(C: Tensor) -> Tensor:
    """The row that gives 2 Re(C x) on real vectors."""
    return 2 * torch.cat([C.real, -C.imag], dim=-1)


def output_from_real(row: Tensor) -> Tensor:
    """Undo :func:`output_to_real`."""
    real, imaginary = row.chunk(2, dim=-1)
    return torch.complex(real / 2, -imaginary / 2)


def krylov(matrix: Tensor, vector: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return [v, M v, M² v, …] (..., size, count) and M to the power of ``count``, which is a power of two.

    Doubling: log2(count) matrix products. ``matrix`` is (dim, size, size) and ``vector`` (..., dim, size).
    """
    columns, power = vector[..., None], matrix
    while columns.shape[-1] < count:
        columns = torch.cat([columns, power @ columns], dim=-1)
        power = power @ power
    return columns, power
