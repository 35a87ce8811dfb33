"""The linear scan as PyTorch operators, so that compilers, exporters and autograd see one node each way."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._operators import call, pack, pack_fake, register, register_backward, register_derivative, unpack
from . import chunked, cpu
from .arguments import Arguments

_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.complex64)


def _kernels(backend: str, arguments: Arguments) -> ModuleType:
    """What computes a backend: a module with ``forward`` and ``backward``."""
    if backend == "cpu":
        return cpu
    if backend == "torch" or arguments.output_dtype not in _TRITON_DTYPES:
        return chunked
    from . import triton

    return triton


def _forward(
    a: Tensor, x: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None, reverse: bool, backend: str
) -> tuple[Tensor, Tensor]:
    arguments = Arguments(a, x, initial_state, cu_seqlens, reverse)
    y, final = _kernels(backend, arguments).forward(arguments)
    return y.to(arguments.output_dtype), final


def _forward_fake(a: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    arguments = Arguments(a, x, *rest[:-1])
    final_shape = (arguments.sequences, x.shape[2])
    return (
        x.new_empty(x.shape, dtype=arguments.output_dtype),
        x.new_empty(final_shape, dtype=arguments.state_dtype),
    )


def _backward(
    a: Tensor,
    x: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    reverse: bool,
    backend: str,
    y: Tensor,
    grad_y: Tensor,
    grad_final: Tensor | None,
) -> list[Tensor]:
    arguments = Arguments(a, x, initial_state, cu_seqlens, reverse)
    kernels = _kernels(backend, arguments)
    if y.dtype != arguments.state_dtype and backend != "triton":
        # Rounded states cost the gradient of a some precision. On a GPU, where time is that of reading and writing,
        # they are good enough: the gradient itself is then rounded to as few digits.
        y, _ = kernels.forward(arguments)
    inputs = (a, x, initial_state)
    gradients = kernels.backward(arguments, y, grad_y, grad_final)
    return pack([_fitting(gradient, tensor) for gradient, tensor in zip(gradients, inputs, strict=True)], inputs)


def _fitting(gradient: Tensor, tensor: Tensor | None) -> Tensor:
    """Real inputs of a complex recurrence take the real part."""
    if tensor is not None and gradient.is_complex() and not tensor.is_complex():
        return gradient.real
    return gradient


_scan = register("longscan::linear_scan", _forward, _forward_fake)
_scan_backward = register_backward(
    "longscan::linear_scan_backward", _backward, lambda *arguments: pack_fake(arguments[:3])
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    a, x, initial_state, cu_seqlens, reverse, backend = inputs
    ctx.save_for_backward(a, x, initial_state, cu_seqlens, output[0])
    ctx.options = (reverse, backend)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None) -> tuple[Tensor | None, ...]:
    a, x, initial_state, cu_seqlens, y = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(y)
    gradients = call(_scan_backward, a, x, initial_state, cu_seqlens, *ctx.options, y, grad_y, grad_final)
    return (*unpack(gradients, (a, x, initial_state)), None, None, None)


register_derivative(_scan, _differentiate, _setup_context)


def run(backend: str, arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The states and the final states."""
    return call(_scan, *arguments, backend)
