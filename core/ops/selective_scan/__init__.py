"""The selective scan of Mamba (Gu and Dao 2023, arXiv:2312.00752, section 3)."""

from __future__ import annotations

from torch import Tensor

from .._dispatch import choose
from .arguments import Arguments, check
from .backends import BACKENDS
from .bidirectional import ScanDirection, selective_scan_bidirectional

__all__ = ["BACKENDS", "ScanDirection", "selective_scan", "selective_scan_bidirectional"]


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
            device. On a GPU "triton" leaves float64 and complex A to "torch". Its gradients are the same bits in every
            run; with inputs of 16 bits those of B and C are sums of shares of 64 channels each, rounded to the dtype
            of u, and states that it keeps for the backward pass are in bfloat16.

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
