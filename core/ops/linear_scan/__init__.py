"""The elementwise linear recurrence of first order (LRU, RG-LRU, S5, HGRN, minGRU and their kin)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from .._checks import check_cu_seqlens, check_ranks, check_shape, check_tensor
from .._dispatch import choose
from . import reference, registration
from .arguments import Arguments

#: The backends by name: each takes the checked arguments and returns the states and the final states.
BACKENDS: dict[str, Callable[[Arguments], tuple[Tensor, Tensor]]] = {
    "reference": reference.run,
    "cpu": partial(registration.run, "cpu"),
    "torch": partial(registration.run, "torch"),
    "triton": partial(registration.run, "triton"),
}


def linear_scan(
    a: Tensor,
    x: Tensor,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run h_t = a_t h_{t-1} + x_t, elementwise, and return every h_t.

    Args:
        a: factors (batch, length, dim), real or complex.
        x: inputs (batch, length, dim), real or complex.
        initial_state: h_0 (batch, dim); the default is zero.
        return_final_state: also return the state after the last token. Its gradient is part of the backward pass.
        cu_seqlens: int32 or int64 (num_sequences + 1,), from 0 up to length: the row (batch must be 1) holds
            sequences end to end, which do not see each other. States are then (num_sequences, dim).
        reverse: scan from the last token to the first, each sequence by itself. The initial state then enters at the
            last token, and the final state is the one after the first token.
        backend: "reference", "cpu", "torch" or "triton"; by default LONGSCAN_BACKEND, else what suits the device.

    Returns:
        h (batch, length, dim) in the dtype that a and x promote to; with ``return_final_state`` also the states
        (batch or num_sequences, dim), in float32 where that dtype is shorter. The recurrence runs in that precision.

    Raises:
        UserError: (a ValueError) for a shape, dtype, device, option or backend that does not fit; nothing has run.
    """
    run = choose("linear_scan", BACKENDS, backend, x.device)
    arguments = Arguments(a, x, initial_state, cu_seqlens, bool(reverse))
    check(arguments)
    y, final_state = run(arguments)
    return (y, final_state) if return_final_state else y


def check(arguments: Arguments) -> None:
    """Raise ``UserError`` unless shapes, dtypes and devices fit together."""
    name, kind = "linear_scan", "floating or complex"
    a, x, initial_state, cu_seqlens, _ = arguments
    check_ranks(name, "x", x, 3, "(batch, length, dim)")
    check_tensor(name, "x", x, x, kind)
    check_tensor(name, "a", a, x, kind)
    batch, length, dim = x.shape
    check_shape(name, "a", a, ((batch, length, dim), "(batch, length, dim) like x"))
    sequences = check_cu_seqlens(name, cu_seqlens, x)
    if initial_state is not None:
        complex_states = a.is_complex() or x.is_complex()
        check_tensor(name, "initial_state", initial_state, x, kind if complex_states else "floating")
        leading = "batch" if cu_seqlens is None else "num_sequences"
        check_shape(name, "initial_state", initial_state, ((sequences, dim), f"({leading}, dim)"))
