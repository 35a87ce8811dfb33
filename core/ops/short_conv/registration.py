"""The short convolution as PyTorch operators, so that compilers, exporters and autograd see one node each way."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._operators import call, pack, pack_fake, register, register_backward, register_derivative, unpack
from . import chunked, cpu
from .arguments import Arguments


def _kernels(backend: str, x: Tensor) -> ModuleType:
    """What computes a backend: a module with ``forward`` and ``backward``."""
    if backend == "cpu":
        return cpu
    if backend == "torch" or x.dtype == torch.float64:
        return chunked
    from . import triton

    return triton


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    silu: bool,
    reverse: bool,
    want_final: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    arguments = Arguments(x, weight, bias, initial_state, cu_seqlens, silu, reverse, want_final)
    y, final = _kernels(backend, x).forward(arguments)
    return y.to(x.dtype).contiguous(), final.to(x.dtype)


def _forward_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    given = Arguments(*arguments[:-1])
    return given.x.new_empty(given.x.shape), given.x.new_empty(given.final_shape)


def _backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    silu: bool,
    reverse: bool,
    backend: str,
    grad_y: Tensor,
    grad_final: Tensor | None,
) -> list[Tensor]:
    arguments = Arguments(x, weight, bias, initial_state, cu_seqlens, silu, reverse)
    return pack(_kernels(backend, x).backward(arguments, grad_y, grad_final), arguments.differentiable)


_conv = register("longscan::short_conv", _forward, _forward_fake)
_conv_backward = register_backward(
    "longscan::short_conv_backward", _backward, lambda *arguments: pack_fake(arguments[:4])
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, silu, reverse, want_final, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = (silu, reverse, backend)
    ctx.want_final = want_final
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(tensors[0])
    grad_final = grad_final if ctx.want_final else None  # the gradient of nothing
    gradients = call(_conv_backward, *tensors, *ctx.options, grad_y, grad_final)
    return (*unpack(gradients, tensors[:4]), None, None, None, None, None)


register_derivative(_conv, _differentiate, _setup_context)


def run(backend: str, arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the final states, which are empty unless they are wanted."""
    return call(_conv, *arguments, backend)
