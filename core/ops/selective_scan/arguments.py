"""The tensors of one call of the selective scan, as its backends receive them, and their gradients."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...errors import UserError
from .._checks import check_cu_seqlens, check_ranks, check_shape, check_tensor


class Arguments(NamedTuple):
    """Checked arguments; shapes as in :func:`longscan.core.ops.selective_scan`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    cu_seqlens: Tensor | None
    delta_softplus: bool
    reverse: bool

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """The arguments that have a gradient."""
        return (self.u, self.delta, self.A, self.B, self.C, self.D, self.z, self.delta_bias, self.initial_state)

    @property
    def sequences(self) -> int:
        """The number of sequences, each with a state of its own."""
        return self.u.shape[0] if self.cu_seqlens is None else self.cu_seqlens.numel() - 1

    @property
    def groups(self) -> int:
        """The number of groups of channels that share B and C; B and C may each be grouped, constant or neither."""
        return max(_groups(self.B), _groups(self.C))


def _groups(matrix: Tensor) -> int:
    return matrix.shape[2] if matrix.ndim == 4 else 1


class Gradients(NamedTuple):
    """Gradients of the differentiable arguments, in their order; None where the argument is None."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None


def check(arguments: Arguments, name: str = "selective_scan") -> None:
    """Raise ``UserError`` unless shapes, dtypes and devices fit together."""
    u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, _, _ = arguments
    check_ranks(name, "u", u, 3, "(batch, length, dim)")
    batch, length, dim = u.shape
    check_tensor(name, "u", u, u)
    check_ranks(name, "A", A, 2, "(dim, state)")
    check_tensor(name, "A", A, u, "floating or complex")
    check_shape(name, "A", A, ((dim, -1), "(dim, state)"))
    state = A.shape[1]
    for label, tensor in (("delta", delta), ("z", z)):
        if tensor is not None:
            check_tensor(name, label, tensor, u)
            check_shape(name, label, tensor, ((batch, length, dim), "(batch, length, dim)"))
    for label, matrix in (("B", B), ("C", C)):
        check_tensor(name, label, matrix, u, "floating or complex" if A.is_complex() else "floating")
        check_shape(
            name,
            label,
            matrix,
            ((batch, length, -1, state), "(batch, length, groups, state)"),
            ((batch, length, state), "(batch, length, state)"),
            ((dim, state), "(dim, state)"),
        )
        if matrix.ndim == 4 and (matrix.shape[2] == 0 or dim % matrix.shape[2]):
            raise UserError(f"{name}: {label} has {matrix.shape[2]} groups, expected a divisor of dim {dim}")
    if B.ndim == C.ndim == 4 and B.shape[2] != C.shape[2] and 1 not in (B.shape[2], C.shape[2]):
        raise UserError(f"{name}: B has {B.shape[2]} groups and C {C.shape[2]}, expected the same number, or 1")
    for label, tensor in (("D", D), ("delta_bias", delta_bias)):
        if tensor is not None:
            check_tensor(name, label, tensor, u)
            check_shape(name, label, tensor, ((dim,), "(dim,)"))
    sequences = check_cu_seqlens(name, cu_seqlens, u)
    if initial_state is not None:
        check_tensor(name, "initial_state", initial_state, u, "floating or complex" if A.is_complex() else "floating")
        leading = "batch" if cu_seqlens is None else "num_sequences"
        check_shape(name, "initial_state", initial_state, ((sequences, dim, state), f"({leading}, dim, state)"))
