"""Two selective scans of one sequence, one from each end, whose results are added (Zhu et al. 2024, arXiv:2401.09417,
section 3.3; Schiff et al. 2024, arXiv:2403.03234, section 3.1)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import UserError
from .._dispatch import choose
from .._operators import call, needs_gradient, pack, pack_fake, register, register_backward, register_derivative, unpack
from .arguments import Arguments, check
from .backends import BACKENDS


class ScanDirection(NamedTuple):
    """What one direction of :func:`selective_scan_bidirectional` has for itself; shapes as in ``selective_scan``."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    delta_bias: Tensor | None = None


def selective_scan_bidirectional(
    forward: ScanDirection,
    reverse: ScanDirection,
    z: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    cu_seqlens: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Scan from the first token and from the last, and add: ``(scan(forward) + scan←(reverse)) · silu(z)``.

    With the "triton" backend both directions are one launch, which reads z once. It takes directions of the same
    structure (shapes, dtypes, and which of D and delta_bias are given); other pairs, and other backends, are two calls
    of ``selective_scan``.

    Args:
        forward, reverse: the arguments of each direction; they may share tensors.
        z: the common gate (batch, length, dim).
        delta_softplus, cu_seqlens, backend: as in ``selective_scan``.

    Returns:
        (batch, length, dim) in the dtype of u. The result of the first direction is rounded to it before they are
        added.

    Raises:
        UserError: (a ValueError) for a shape, dtype, device, option or backend that does not fit, or directions whose
            u differ in shape or dtype; nothing has run.
    """
    run = choose("selective_scan", BACKENDS, backend, forward.u.device)
    scans = tuple(
        Arguments(one.u, one.delta, one.A, one.B, one.C, one.D, z, one.delta_bias, None, cu_seqlens,
                  bool(delta_softplus), from_end)
        for one, from_end in ((forward, False), (reverse, True))
    )  # fmt: skip
    for name, scan in zip(("forward", "reverse"), scans, strict=True):
        check(scan, f"selective_scan_bidirectional, {name}")
    if reverse.u.shape != forward.u.shape or reverse.u.dtype != forward.u.dtype:
        raise UserError(
            f"selective_scan_bidirectional: u of the reverse direction is {reverse.u.dtype} {tuple(reverse.u.shape)}, "
            f"expected {forward.u.dtype} {tuple(forward.u.shape)} like that of the forward one"
        )
    if run is BACKENDS["triton"] and _fit_a_kernel(forward, reverse):
        save = needs_gradient(*forward, *reverse, z)
        return call(_scan, *forward, *reverse, z, cu_seqlens, bool(delta_softplus), save)[0]
    return run(scans[0])[0] + run(scans[1])[0]


def _fit_a_kernel(forward: ScanDirection, reverse: ScanDirection) -> bool:
    """Whether one kernel can do both: it is for real numbers of 32 bits or less, and compiled for one structure."""
    return (
        forward.u.dtype != torch.float64
        and not forward.A.is_complex()
        and all(
            (a is None) == (b is None) and (a is None or b is None or (a.shape == b.shape and a.dtype == b.dtype))
            for a, b in zip(forward, reverse, strict=True)
        )
    )


def _both(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    reverse_u: Tensor, reverse_delta: Tensor, reverse_A: Tensor, reverse_B: Tensor, reverse_C: Tensor,
    reverse_D: Tensor | None, reverse_delta_bias: Tensor | None,
    z: Tensor | None, cu_seqlens: Tensor | None, delta_softplus: bool,
) -> tuple[Arguments, Arguments]:  # fmt: skip
    return (
        Arguments(u, delta, A, B, C, D, z, delta_bias, None, cu_seqlens, delta_softplus, False),
        Arguments(
            reverse_u, reverse_delta, reverse_A, reverse_B, reverse_C, reverse_D, z, reverse_delta_bias, None,
            cu_seqlens, delta_softplus, True,
        ),
    )  # fmt: skip


def _forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    reverse_u: Tensor, reverse_delta: Tensor, reverse_A: Tensor, reverse_B: Tensor, reverse_C: Tensor,
    reverse_D: Tensor | None, reverse_delta_bias: Tensor | None,
    z: Tensor | None, cu_seqlens: Tensor | None, delta_softplus: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from . import triton

    scans = _both(
        u, delta, A, B, C, D, delta_bias, reverse_u, reverse_delta, reverse_A, reverse_B, reverse_C, reverse_D,
        reverse_delta_bias, z, cu_seqlens, delta_softplus,
    )  # fmt: skip
    y, _, (entries, reverse_entries) = triton.run_forward(scans, save)
    return y, entries, reverse_entries


def _forward_fake(u: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    from . import triton

    *arguments, save = rest
    scan = _both(u, *arguments)[0]
    shape = triton.entries_shape(scan)
    entries = [u.new_empty(shape if save else (0, *shape[1:]), dtype=triton.entries_dtype(scan)) for _ in range(2)]
    return u.new_empty(u.shape), entries[0], entries[1]


def _backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
    reverse_u: Tensor, reverse_delta: Tensor, reverse_A: Tensor, reverse_B: Tensor, reverse_C: Tensor,
    reverse_D: Tensor | None, reverse_delta_bias: Tensor | None,
    z: Tensor | None, cu_seqlens: Tensor | None, delta_softplus: bool,
    entries: Tensor, reverse_entries: Tensor, grad_y: Tensor,
) -> list[Tensor]:  # fmt: skip
    from . import triton

    scans = _both(
        u, delta, A, B, C, D, delta_bias, reverse_u, reverse_delta, reverse_A, reverse_B, reverse_C, reverse_D,
        reverse_delta_bias, z, cu_seqlens, delta_softplus,
    )  # fmt: skip
    left, right = triton.run_backward(scans, (entries, reverse_entries), grad_y)
    gradients = [(g.u, g.delta, g.A, g.B, g.C, g.D, g.delta_bias) for g in (left, right)]
    inputs = [(s.u, s.delta, s.A, s.B, s.C, s.D, s.delta_bias) for s in scans]
    return pack([*gradients[0], *gradients[1], left.z], [*inputs[0], *inputs[1], z])


_scan = register("longscan::selective_scan_bidirectional", _forward, _forward_fake)
_scan_backward = register_backward(
    "longscan::selective_scan_bidirectional_backward", _backward, lambda *arguments: pack_fake(arguments[:15])
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, delta_softplus, _ = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.delta_softplus = delta_softplus
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    *tensors, entries, reverse_entries = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(tensors[0])
    gradients = call(_scan_backward, *tensors, ctx.delta_softplus, entries, reverse_entries, grad_y)
    return (*unpack(gradients, tensors[:15]), None, None, None)


register_derivative(_scan, _differentiate, _setup_context)
