"""The short causal depthwise convolution in front of Mamba, Hyena, Griffin and most recurrent mixers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ...errors import UserError
from .._checks import check_cu_seqlens, check_ranks, check_shape, check_tensor
from .._dispatch import choose
from . import reference, registration
from .arguments import Arguments

#: The backends by name: each takes the checked arguments and returns y and the final states.
BACKENDS: dict[str, Callable[[Arguments], tuple[Tensor, Tensor]]] = {
    "reference": reference.run,
    "cpu": partial(registration.run, "cpu"),
    "torch": partial(registration.run, "torch"),
    "triton": partial(registration.run, "triton"),
}

_ACTIVATIONS = {None: False, "silu": True, "swish": True}


def short_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve every channel with a few taps of its own::

        y_t = activation(bias + sum_w weight[:, w] x_{t - (width - 1) + w})          w = 0 ... width - 1

    so the last tap meets the token itself and the first one the oldest. What lies before the first token is the
    initial state, or zero. With ``reverse`` the same holds for the sequence read from its end:
    ``y_t = activation(bias + sum_w weight[:, w] x_{t + (width - 1) - w})``.

    A state is the last ``width - 1`` inputs in the order in which the scan met them, the most recent one last. Forward,
    the final state is ``x[:, -(width - 1):]``; with ``reverse`` it is the first ``width - 1`` tokens from the last of
    them to the first, ``x[:, :width - 1].flip(1)``. Pieces shorter than that keep what is left of the initial state,
    so the final state of one piece is always the initial state of the next one.

    Args:
        x: (batch, length, dim), of any floating dtype, which the output takes too.
        weight: (dim, width).
        bias: (dim,).
        activation: None or "silu" ("swish" is the same).
        initial_state: (batch, width - 1, dim); the default is zero.
        return_final_state: also return the final state. Its gradient is part of the backward pass.
        cu_seqlens: int32 or int64 (num_sequences + 1,), from 0 up to length: the row (batch must be 1) holds
            sequences end to end, which do not see each other. States are then (num_sequences, width - 1, dim).
        reverse: read every sequence from its end.
        backend: "reference", "cpu", "torch" or "triton"; by default LONGSCAN_BACKEND, else what suits the device.

    Returns:
        y (batch, length, dim); with ``return_final_state`` also the states, in the dtype of x.

    Raises:
        UserError: (a ValueError) for a shape, dtype, device, option or backend that does not fit; nothing has run.
    """
    run = choose("short_conv", BACKENDS, backend, x.device)
    if activation not in _ACTIVATIONS:
        raise UserError(f"short_conv: activation={activation!r} is unknown, expected None or 'silu'")
    silu = _ACTIVATIONS[activation]
    arguments = Arguments(x, weight, bias, initial_state, cu_seqlens, silu, bool(reverse), bool(return_final_state))
    check(arguments)
    y, final_state = run(arguments)
    return (y, final_state) if return_final_state else y


def check(arguments: Arguments) -> None:
    """Raise ``UserError`` unless shapes, dtypes and devices fit together."""
    name = "short_conv"
    x, weight, bias, initial_state, cu_seqlens, *_ = arguments
    check_ranks(name, "x", x, 3, "(batch, length, dim)")
    check_tensor(name, "x", x, x)
    dim = x.shape[2]
    check_ranks(name, "weight", weight, 2, "(dim, width)")
    check_tensor(name, "weight", weight, x)
    check_shape(name, "weight", weight, ((dim, -1), "(dim, width)"))
    if bias is not None:
        check_tensor(name, "bias", bias, x)
        check_shape(name, "bias", bias, ((dim,), "(dim,)"))
    sequences = check_cu_seqlens(name, cu_seqlens, x)
    if initial_state is not None:
        check_tensor(name, "initial_state", initial_state, x)
        leading = "batch" if cu_seqlens is None else "num_sequences"
        shape = (sequences, weight.shape[1] - 1, dim)
        check_shape(name, "initial_state", initial_state, (shape, f"({leading}, width - 1, dim)"))
