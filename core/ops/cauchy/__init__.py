"""The frequency response of a diagonal state space: sums of simple fractions, S4's Cauchy kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from .._checks import check_ranks, check_shape, check_tensor
from .._dispatch import choose
from . import reference, registration
from .arguments import Arguments

#: The backends by name: each takes the checked arguments and returns the responses.
BACKENDS: dict[str, Callable[[Arguments], Tensor]] = {
    "reference": reference.run,
    "cpu": partial(registration.run, "cpu"),
    "torch": partial(registration.run, "torch"),
    "triton": partial(registration.run, "triton"),
}


def cauchy(
    coefficients: Tensor,
    poles: Tensor,
    frequencies: Tensor,
    scales: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Sum simple fractions over every channel's poles and their conjugates, on the imaginary axis::

        r[c, h, j] = sum_n v / (i w_j - s_j p) + conj(v) / (i w_j - s_j conj(p))     v = coefficients[c, h, n]
                                                                                      p = poles[h, n]

    Scales keep the sums finite where frequencies would be infinite: S4's nodes are z = 2i tan(t / 2) up to t = pi, and
    1 / (z - p) = cos(t / 2) / (2i sin(t / 2) - cos(t / 2) p) has no infinity on its right hand side.

    The table (dim, state, frequencies) is made in blocks that fit a cache, and again in the backward pass.

    Args:
        coefficients: (channels, dim, state), complex. Their precision is that of the sums and of the result.
        poles: (dim, state), complex, with negative real parts. The differences i w - s p are formed in float64, since
            they nearly vanish at a resonance; poles in complex128 lose nothing with complex64 coefficients.
        frequencies: (number,), real, w above. Constant: no gradient.
        scales: (number,), real, s above; the default is 1. Constant: no gradient.
        backend: "reference", "cpu", "torch" or "triton"; by default LONGSCAN_BACKEND, else what suits the device.

    Returns:
        r (channels, dim, number) in the dtype of the coefficients.

    Raises:
        UserError: (a ValueError) for a shape, dtype, device or backend that does not fit; nothing has run.
    """
    run = choose("cauchy", BACKENDS, backend, coefficients.device)
    name = "cauchy"
    check_ranks(name, "coefficients", coefficients, 3, "(channels, dim, state)")
    check_tensor(name, "coefficients", coefficients, coefficients, "complex")
    check_ranks(name, "poles", poles, 2, "(dim, state)")
    check_tensor(name, "poles", poles, coefficients, "complex")
    check_shape(name, "poles", poles, (tuple(coefficients.shape[1:]), "(dim, state)"))
    check_ranks(name, "frequencies", frequencies, 1, "(number,)")
    check_tensor(name, "frequencies", frequencies, coefficients)
    if scales is None:
        scales = frequencies.new_ones(frequencies.shape)
    check_tensor(name, "scales", scales, coefficients)
    check_shape(name, "scales", scales, (tuple(frequencies.shape), "(number,) like frequencies"))
    return run(Arguments(coefficients, poles, frequencies, scales))
