"""One step of the selective scan, for generation token by token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError
from .._checks import check_ranks, check_shape, check_tensor
from .._dtypes import accumulation_dtype


def selective_state_update(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Advance ``state`` in place by one token and return the output; the formulas are those of ``selective_scan``.

    Args:
        state: (batch, dim, state), float32 or longer, complex for complex A; overwritten with the next one.
        u: the token (batch, dim), of any floating dtype, which the output takes too.
        delta: step size before bias and softplus, (batch, dim).
        A: (dim, state), real or complex.
        B, C: each (batch, groups, state), (batch, state), or (dim, state) when constant in time. Where batch equals
            dim, two axes are read as (batch, state).
        D: skip weights (dim,).
        z: gate (batch, dim).
        delta_bias: (dim,).
        delta_softplus: whether the step size is the softplus of ``delta + delta_bias``.

    Returns:
        y (batch, dim).

    Raises:
        UserError: (a ValueError) for a shape, dtype or device that does not fit; the state is untouched.
    """
    _check(state, u, delta, A, B, C, D, z, delta_bias)
    real = accumulation_dtype(u.dtype)
    x, dt = u.to(real), delta.to(real)
    if delta_bias is not None:
        dt = dt + delta_bias.to(real)
    if delta_softplus:
        dt = F.softplus(dt)
    B_t, C_t = _per_channel(B, u), _per_channel(C, u)
    state.mul_(torch.exp(dt[..., None] * A.to(state.dtype))).add_((dt * x)[..., None] * B_t.to(state.dtype))
    y = (state * C_t.to(state.dtype)).sum(-1)
    if y.is_complex():
        y = 2 * y.real
    if D is not None:
        y = y + D.to(real) * x
    if z is not None:
        y = y * F.silu(z.to(real))
    return y.to(u.dtype)


def _per_channel(matrix: Tensor, u: Tensor) -> Tensor:
    """B or C in any of its layouts, so that it broadcasts with (batch, dim, state)."""
    batch, dim = u.shape
    if matrix.ndim == 3:
        return matrix.repeat_interleave(dim // matrix.shape[1], dim=1)
    return matrix[:, None] if matrix.shape[0] == batch else matrix


def _check(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    name = "selective_state_update"
    check_ranks(name, "u", u, 2, "(batch, dim)")
    check_tensor(name, "u", u, u)
    batch, dim = u.shape
    check_ranks(name, "A", A, 2, "(dim, state)")
    check_tensor(name, "A", A, u, "floating or complex")
    check_shape(name, "A", A, ((dim, -1), "(dim, state)"))
    states = A.shape[1]
    check_tensor(name, "state", state, u, "floating or complex")
    check_shape(name, "state", state, ((batch, dim, states), "(batch, dim, state)"))
    if A.is_complex() and not state.is_complex():
        raise UserError(f"{name}: state has dtype {state.dtype}, expected a complex dtype like that of A")
    if state.is_complex() and not A.is_complex():
        raise UserError(f"{name}: state has dtype {state.dtype}, expected a real dtype like that of A")
    for label, tensor in (("delta", delta), ("z", z)):
        if tensor is not None:
            check_tensor(name, label, tensor, u)
            check_shape(name, label, tensor, ((batch, dim), "(batch, dim)"))
    for label, matrix in (("B", B), ("C", C)):
        check_tensor(name, label, matrix, u, "floating or complex" if A.is_complex() else "floating")
        check_shape(
            name,
            label,
            matrix,
            ((batch, -1, states), "(batch, groups, state)"),
            ((batch, states), "(batch, state)"),
            ((dim, states), "(dim, state)"),
        )
        if matrix.ndim == 3 and (matrix.shape[1] == 0 or dim % matrix.shape[1]):
            raise UserError(f"{name}: {label} has {matrix.shape[1]} groups, expected a divisor of dim {dim}")
    for label, tensor in (("D", D), ("delta_bias", delta_bias)):
        if tensor is not None:
            check_tensor(name, label, tensor, u)
            check_shape(name, label, tensor, ((dim,), "(dim,)"))
