"""The selective scan of Mamba (Gu and Dao 2023, arXiv:2312.00752, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ...errors import UserError
from .._checks import check_cu_seqlens, check_ranks, check_shape, check_tensor
from .._dispatch import choose
from . import mamba_ssm, reference, registration
from .arguments import Arguments

#: The backends by name: each takes the checked arguments and returns y and the final states.
BACKENDS: dict[str, Callable[[Arguments], tuple[Tensor, Tensor]]] = {
    "reference": reference.run,
    "cpu": partial(registration.run, "cpu"),
    "torch": partial(registration.run, "torch"),
    "triton": partial(registration.run, "triton"),
    "mamba_ssm": mamba_ssm.run,
}


def selective_scan(
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
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan a linear state space whose step, input and output matrices depend on the token.

    For each channel d, with n over the states and products taken elementwise::

        dt_t  = softplus(delta_t + delta_bias)        (or without the softplus; it is the identity above 20)
        h_t,n = exp(dt_t A_n) h_{t-1,n} + dt_t B_t,n u_t
        y_t   = sum_n C_t,n h_t,n + D u_t             (complex A: twice the real part of the sum)
        out_t = y_t silu(z_t)

    Args:
        u: inputs (batch, length, dim), of any floating dtype, which the output takes too.
        delta: step sizes before bias and softplus, (batch, length, dim); used in float32.
        A: (dim, state), real, or complex for half of a conjugate-symmetric state.
        B, C: each (batch, length, groups, state), (batch, length, state), or (dim, state) when constant in time. With
            groups, channel d uses group d // (dim / groups). With complex A they may be real or complex.
        D: skip weights (dim,).
        z: gate (batch, length, dim).
        delta_bias: (dim,).
        delta_softplus: whether the step size is the softplus of ``delta + delta_bias``.
        initial_state: the state before the first token, (batch, dim, state); the default is zero.
        return_final_state: also return the state after the last token. Its gradient is part of the backward pass.
        cu_seqlens: int32 or int64 (num_sequences + 1,), from 0 up to length: the row (batch must be 1) holds
            sequences end to end, which do not see each other. States are then (num_sequences, dim, state).
        reverse: scan from the last token to the first, each sequence by itself. The initial state then enters at the
            last token, and the final state is the one after the first token.
        backend: "reference", "cpu", "torch", "triton" or "mamba_ssm"; by default LONGSCAN_BACKEND, else what suits the
            device. On a GPU "triton" leaves float64, complex A and, with gradients, more than 64 states to "torch".
            Its gradients are the same bits in every run; with inputs of 16 bits those of B and C are sums of shares
            of 16 channels each, rounded to the dtype of u.

    Returns:
        out (batch, length, dim); with ``return_final_state`` also the states (batch or num_sequences, dim, state) in
        float32 (float64 for float64 inputs, and the complex dtypes of these for complex A).

    Raises:
        UserError: (a ValueError) for a shape, dtype, device, option or backend that does not fit; nothing has run.
    """
    run = choose("selective_scan", BACKENDS, backend, u.device)
    arguments = Arguments(
        u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, bool(delta_softplus), bool(reverse)
    )
    check(arguments)
    y, final_state = run(arguments)
    return (y, final_state) if return_final_state else y


def check(arguments: Arguments) -> None:
    """Raise ``UserError`` unless shapes, dtypes and devices fit together."""
    name = "selective_scan"
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
