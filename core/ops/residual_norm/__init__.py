"""The norm in front of a layer, together with the addition to the residual stream before it and a gate after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ...errors import UserError
from .._checks import check_shape, check_tensor
from .._dispatch import choose
from . import plain, reference, registration
from .arguments import Arguments

#: The backends by name: each takes the checked arguments and returns y and the sum.
BACKENDS: dict[str, Callable[[Arguments], tuple[Tensor, Tensor]]] = {
    "reference": reference.run,
    "cpu": plain.run,
    "torch": plain.run,
    "triton": partial(registration.run, keep=False),
}

_KINDS = {"rms": False, "layer": True}


def residual_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    gate: Tensor | None = None,
    kind: Literal["rms", "layer"] = "rms",
    eps: float = 1e-5,
    norm_before_gate: bool = True,
    return_residual: bool = False,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Add a layer's output to the residual stream and normalise the sum over its channels, in one pass::

        s = residual + x
        y = weight · norm(s) + bias           rms:   norm(s) = s / sqrt(mean(s²) + eps)
                                              layer: norm(s) = (s - mean(s)) / sqrt(var(s) + eps)

    With a gate the result is ``y · silu(gate)``, or with ``norm_before_gate=False`` (the default of Mamba-2) what is
    normalised is ``s · silu(gate)``. The norm and its gradients are computed in float32 (float64 for float64) from the
    sum as it is kept. RMS norm: Zhang and Sennrich 2019, arXiv:1910.07467; layer norm: Ba et al. 2016,
    arXiv:1607.06450; the gated norm: Dao and Gu 2024, arXiv:2405.21060, section 7.

    Args:
        x: (…, dim), of any floating dtype.
        weight: (dim,).
        bias: (dim,), in either kind of norm.
        residual: of the shape of x, often float32 beside a shorter x; without it s is x itself.
        gate: of the shape of x.
        kind: "rms" or "layer".
        eps: added to the mean square or the variance.
        norm_before_gate: gate what the norm gives, or what it is given.
        return_residual: also return s, in the wider dtype of x and residual. Its gradient is part of the backward pass.
        dtype: of y; the default is that of x.
        backend: "reference", "cpu", "torch" or "triton"; by default LONGSCAN_BACKEND, else what suits the device.

    Returns:
        y, of the shape of x; with ``return_residual`` also s.

    Raises:
        UserError: (a ValueError) for a shape, dtype, device, option or backend that does not fit; nothing has run.
    """
    run = choose("residual_norm", BACKENDS, backend, x.device)
    if kind not in _KINDS:
        raise UserError(f"residual_norm: kind={kind!r} is unknown, expected 'rms' or 'layer'")
    if dtype is not None and not dtype.is_floating_point:
        raise UserError(f"residual_norm: dtype={dtype} is no floating dtype")
    if not (eps >= 0 and math.isfinite(eps)):
        raise UserError(f"residual_norm: eps={eps}, expected a number ≥ 0")
    arguments = Arguments(
        x, residual, gate, weight, bias, _KINDS[kind], bool(norm_before_gate), float(eps), dtype or x.dtype
    )
    check(arguments)
    if not return_residual:
        return run(arguments)[0]
    if run is BACKENDS["triton"]:
        return registration.run(arguments, keep=True)
    return run(arguments)


def check(arguments: Arguments) -> None:
    """Raise ``UserError`` unless shapes, dtypes and devices fit together."""
    name = "residual_norm"
    x, residual, gate, weight, bias = arguments.differentiable
    assert x is not None  # for the type checker
    check_tensor(name, "x", x, x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise UserError(f"{name}: x has shape {tuple(x.shape)}, expected (…, dim) with dim ≥ 1")
    for label, tensor in (("residual", residual), ("gate", gate)):
        if tensor is not None:
            check_tensor(name, label, tensor, x)
            check_shape(name, label, tensor, (x.shape, "the shape of x"))
    for label, vector in (("weight", weight), ("bias", bias)):
        if vector is not None:
            check_tensor(name, label, vector, x)
            check_shape(name, label, vector, ((x.shape[-1],), "(dim,)"))
