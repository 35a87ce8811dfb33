"""One step of the selective scan, for generation token by token."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...errors import UserError
from .._checks import check_ranks, check_shape, check_tensor
from .._dispatch import choose
from . import plain, registration
from .arguments import Arguments

#: The backends by name: each takes the checked arguments, advances the state and returns y.
BACKENDS: dict[str, Callable[[Arguments], Tensor]] = {
    "reference": plain.run,
    "cpu": plain.run,
    "torch": plain.run,
    "triton": registration.run,
}


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
    *,
    backend: str | None = None,
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
        backend: "reference", "cpu", "torch" (the same plain PyTorch) or "triton"; by default LONGSCAN_BACKEND, else
            what suits the device. Where a gradient is needed, and for float64 and complex numbers, "triton" is
            plain PyTorch too.

    Returns:
        y (batch, dim).

    Raises:
        UserError: (a ValueError) for a shape, dtype, device or backend that does not fit; the state is untouched.
    """
    run = choose("selective_state_update", BACKENDS, backend, u.device)
    arguments = Arguments(state, u, delta, A, B, C, D, z, delta_bias, bool(delta_softplus))
    check(arguments)
    return run(arguments)


def check(arguments: Arguments) -> None:
    """Raise ``UserError`` unless shapes, dtypes and devices fit together."""
    state, u, delta, A, B, C, D, z, delta_bias, _ = arguments
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
