"""The kernel of a diagonal state space (S4D, DSS, the exponential moving average): sums of powers of its modes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ...errors import UserError
from .._checks import check_ranks, check_shape, check_tensor
from .._dispatch import choose
from . import reference, registration
from .arguments import Arguments, MomentArguments

#: The backends by name: each takes the checked arguments and returns the kernels.
BACKENDS: dict[str, Callable[[Arguments], Tensor]] = {
    "reference": reference.run,
    "cpu": partial(registration.run, "torch"),
    "torch": partial(registration.run, "torch"),
    "triton": partial(registration.run, "triton"),
}
MOMENT_BACKENDS: dict[str, Callable[[MomentArguments], Tensor]] = {
    "reference": reference.run_moments,
    "cpu": partial(registration.run_moments, "torch"),
    "torch": partial(registration.run_moments, "torch"),
    "triton": partial(registration.run_moments, "triton"),
}


def vandermonde(coefficients: Tensor, log_factors: Tensor, length: int, *, backend: str | None = None) -> Tensor:
    """Sum the powers of every channel's modes and of their conjugates::

        kernel[c, h, l] = 2 Re sum_n coefficients[c, h, n] exp(l log_factors[h, n])          l = 0 ... length - 1

    With coefficients C * Bbar and log_factors dt * A this is S4D's kernel under zero-order hold; with the logarithm of
    (1 + dt A / 2) / (1 - dt A / 2), under the bilinear rule; halved coefficients give DSS. The table of powers
    (dim, state, length) never exists: a power is the product of one from a table of about sqrt(length) coarse and one
    of as many fine steps, and the sum over modes is a matrix product. The backward pass makes the tables anew.

    Args:
        coefficients: (channels, dim, state), complex. Their precision is that of the sums and of the result.
        log_factors: (dim, state), complex; their real parts should not be positive. Exponents are formed in float64,
            so that log_factors in complex128 give exact phases at any length, with complex64 coefficients too.
        length: of the kernels.
        backend: "reference", "cpu", "torch" or "triton"; by default LONGSCAN_BACKEND, else what suits the device.
            "cpu" and "torch" are the same code.

    Returns:
        kernel (channels, dim, length), float32 for complex64 coefficients and float64 for complex128.

    Raises:
        UserError: (a ValueError) for a shape, dtype, device or backend that does not fit; nothing has run.
    """
    run = choose("vandermonde", BACKENDS, backend, coefficients.device)
    name = "vandermonde"
    check_ranks(name, "coefficients", coefficients, 3, "(channels, dim, state)")
    check_tensor(name, "coefficients", coefficients, coefficients, "complex")
    _check_log_factors(name, log_factors, coefficients, tuple(coefficients.shape[1:]))
    if not isinstance(length, int) or length < 1:
        raise UserError(f"{name}: length is {length!r}, expected a positive integer")
    return run(Arguments(coefficients, log_factors, length))


def vandermonde_moments(signal: Tensor, log_factors: Tensor, *, backend: str | None = None) -> Tensor:
    """Sum a signal against the powers of every channel's modes, the transpose of :func:`vandermonde`::

        moments[c, h, n] = sum_l signal[c, h, l] exp(l log_factors[h, n])

    Of a signal reversed in time this is the state that a diagonal recurrence ends in.

    Args:
        signal: (channels, dim, length), float32 or float64: its precision is that of the sums and of the result.
        log_factors: (dim, state), complex, as for :func:`vandermonde`.
        backend: as for :func:`vandermonde`.

    Returns:
        moments (channels, dim, state), complex64 or complex128.

    Raises:
        UserError: (a ValueError) for a shape, dtype, device or backend that does not fit; nothing has run.
    """
    run = choose("vandermonde_moments", MOMENT_BACKENDS, backend, signal.device)
    name = "vandermonde_moments"
    check_ranks(name, "signal", signal, 3, "(channels, dim, length)")
    check_tensor(name, "signal", signal, signal)
    _check_log_factors(name, log_factors, signal, (signal.shape[1], -1))
    return run(MomentArguments(signal, log_factors))


def _check_log_factors(name: str, log_factors: Tensor, like: Tensor, shape: tuple[int, ...]) -> None:
    check_ranks(name, "log_factors", log_factors, 2, "(dim, state)")
    check_tensor(name, "log_factors", log_factors, like, "complex")
    check_shape(name, "log_factors", log_factors, (shape, "(dim, state)"))
