"""One step of the short convolution, for generation token by token."""

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

_ACTIVATIONS = {None: False, "silu": True, "swish": True}


def short_conv_update(
    state: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Advance ``state`` in place by one token and return the output; the formulas are those of ``short_conv``.

    Args:
        state: (batch, width - 1, dim), the last inputs, oldest first, as ``short_conv`` returns it; overwritten.
        x: the token (batch, dim), of any floating dtype, which the output takes too.
        weight: (dim, width).
        bias: (dim,).
        activation: None or "silu" ("swish" is the same).
        backend: "reference", "cpu", "torch" (the same plain PyTorch) or "triton"; by default LONGSCAN_BACKEND, else
            what suits the device. Where a gradient is needed, and for float64, "triton" is plain PyTorch too.

    Returns:
        y (batch, dim).

    Raises:
        UserError: (a ValueError) for a shape, dtype, device, option or backend that does not fit; the state is
            untouched.
    """
    run = choose("short_conv_update", BACKENDS, backend, x.device)
    if activation not in _ACTIVATIONS:
        raise UserError(f"short_conv_update: activation={activation!r} is unknown, expected None or 'silu'")
    arguments = Arguments(state, x, weight, bias, _ACTIVATIONS[activation])
    check(arguments)
    return run(arguments)


def check(arguments: Arguments) -> None:
    """Raise ``UserError`` unless shapes, dtypes and devices fit together."""
    name = "short_conv_update"
    state, x, weight, bias, _ = arguments
    check_ranks(name, "x", x, 2, "(batch, dim)")
    check_tensor(name, "x", x, x)
    batch, dim = x.shape
    check_ranks(name, "weight", weight, 2, "(dim, width)")
    check_tensor(name, "weight", weight, x)
    check_shape(name, "weight", weight, ((dim, -1), "(dim, width)"))
    check_tensor(name, "state", state, x)
    check_shape(name, "state", state, ((batch, weight.shape[1] - 1, dim), "(batch, width - 1, dim)"))
    if bias is not None:
        check_tensor(name, "bias", bias, x)
        check_shape(name, "bias", bias, ((dim,), "(dim,)"))
