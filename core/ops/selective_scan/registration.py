"""The selective scan as PyTorch operators, so that compilers, exporters and autograd see one node each way."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._dtypes import accumulation_dtype, complex_dtype
from .._operators import call, needs_gradient, pack, pack_fake, register, register_backward, register_derivative, unpack
from . import chunked, cpu
from .arguments import Arguments


def kernels_of(backend: str, u: Tensor, A: Tensor) -> ModuleType:
    """What computes a backend: a module with ``forward``, ``backward``, ``entries_shape`` and ``entries_dtype``."""
    if backend == "torch" or A.is_complex():  # compiled kernels are for real A
        return chunked
    if backend == "cpu":
        return cpu
    if u.dtype == torch.float64:
        return chunked
    from . import triton

    return triton


def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    backend: str,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    arguments = Arguments(u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, delta_softplus, reverse)
    return kernels_of(backend, u, A).forward(arguments, save)


def _forward_fake(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    *others, backend, save = rest
    arguments = Arguments(u, delta, A, *others)
    real = accumulation_dtype(u.dtype)
    dtype = complex_dtype(real) if A.is_complex() else real
    kernels = kernels_of(backend, u, A)
    shape = kernels.entries_shape(arguments)
    return (
        u.new_empty(u.shape),
        u.new_empty((arguments.sequences, *A.shape), dtype=dtype),
        u.new_empty(shape if save else (0, *shape[1:]), dtype=kernels.entries_dtype(arguments)),
    )


def _backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    backend: str,
    entries: Tensor,
    grad_y: Tensor,
    grad_final: Tensor | None,
) -> list[Tensor]:
    arguments = Arguments(u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, delta_softplus, reverse)
    gradients = kernels_of(backend, u, A).backward(arguments, entries, grad_y, grad_final)
    return pack(gradients, arguments.differentiable)


_scan = register("longscan::selective_scan", _forward, _forward_fake)
_scan_backward = register_backward(
    "longscan::selective_scan_backward", _backward, lambda *arguments: pack_fake(arguments[:9])
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, delta_softplus, reverse, backend, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.options = (delta_softplus, reverse, backend)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    *tensors, entries = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(tensors[0])
    gradients = call(_scan_backward, *tensors, *ctx.options, entries, grad_y, grad_final)
    return (*unpack(gradients, tensors[:9]), None, None, None, None, None)


register_derivative(_scan, _differentiate, _setup_context)


def run(backend: str, arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the final states."""
    save = needs_gradient(*arguments.differentiable)
    y, final, _ = call(_scan, *arguments, backend, save)
    return y, final
