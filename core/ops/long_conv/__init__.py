"""The long convolution of Hyena, S4 in its convolutional form, SGConv and their kin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from .._checks import check_ranks, check_shape, check_tensor
from .._dispatch import choose
from . import reference, registration
from .arguments import Arguments

#: The backends by name: each takes the checked arguments and returns y.
BACKENDS: dict[str, Callable[[Arguments], Tensor]] = {
    "reference": reference.run,
    "cpu": partial(registration.run, "cpu"),
    "torch": partial(registration.run, "torch"),
}


def long_conv(
    u: Tensor,
    kernel: Tensor,
    skip: Tensor | None = None,
    *,
    gate_in: Tensor | None = None,
    gate_out: Tensor | None = None,
    causal: bool = True,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Convolve every channel with a kernel of its own, as long as the sequence or longer, through the FFT::

        v_t = gate_in_t u_t
        y_t = gate_out_t (sum_lag kernel[lag] v_{t - lag} + skip v_t)

    Causal, the lags are 0 ... kernel_length - 1. Otherwise the kernel is centred: lag 0 is at index
    kernel_length // 2, and lags reach from -(kernel_length // 2) on. Outside the sequence v is zero, so that taps
    beyond its length have no effect. With ``reverse`` the sum runs over v_{t + lag}.

    Args:
        u: (batch, length, dim), of any floating dtype, which the output takes too.
        kernel: (dim, kernel_length), shorter than the sequence, as long or longer.
        skip: (dim,); the default is none.
        gate_in, gate_out: (batch, length, dim), multiplied before and after.
        causal: whether the kernel begins at lag 0 or is centred there.
        reverse: convolve backwards in time (the transpose of the operator).
        backend: "reference", "cpu" or "torch"; by default LONGSCAN_BACKEND, else what suits the device. "cpu" and
            "torch" are the same code.

    Returns:
        y (batch, length, dim).

    Raises:
        UserError: (a ValueError) for a shape, dtype, device or backend that does not fit; nothing has run.
    """
    run = choose("long_conv", BACKENDS, backend, u.device)
    arguments = Arguments(u, kernel, skip, gate_in, gate_out, bool(causal), bool(reverse))
    check(arguments)
    return run(arguments)


def check(arguments: Arguments) -> None:
    """Raise ``UserError`` unless shapes, dtypes and devices fit together."""
    name = "long_conv"
    u, kernel, skip, gate_in, gate_out, _, _ = arguments
    check_ranks(name, "u", u, 3, "(batch, length, dim)")
    check_tensor(name, "u", u, u)
    batch, length, dim = u.shape
    check_ranks(name, "kernel", kernel, 2, "(dim, kernel_length)")
    check_tensor(name, "kernel", kernel, u)
    check_shape(name, "kernel", kernel, ((dim, -1), "(dim, kernel_length)"))
    if skip is not None:
        check_tensor(name, "skip", skip, u)
        check_shape(name, "skip", skip, ((dim,), "(dim,)"))
    for label, gate in (("gate_in", gate_in), ("gate_out", gate_out)):
        if gate is not None:
            check_tensor(name, label, gate, u)
            check_shape(name, label, gate, ((batch, length, dim), "(batch, length, dim)"))
