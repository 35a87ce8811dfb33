"""The residual norm's kernels as PyTorch operators, so that compilers, exporters and autograd see one node each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._operators import call, needs_gradient, pack_fake, register, register_backward, register_derivative
from . import plain
from .arguments import Arguments


def _forward(
    x: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    layer: bool,
    norm_before_gate: bool,
    eps: float,
    dtype: torch.dtype,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    from . import triton

    return triton.forward(Arguments(x, residual, gate, weight, bias, layer, norm_before_gate, eps, dtype), keep)


def _forward_fake(*values: Any) -> tuple[Tensor, Tensor]:
    *rest, keep = values
    arguments = Arguments(*rest)
    x = arguments.x
    kept = x.shape if keep and arguments.residual is not None else (0,)
    return x.new_empty(x.shape, dtype=arguments.dtype), x.new_empty(kept, dtype=arguments.stream_dtype)


def _backward(
    stream: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    layer: bool,
    norm_before_gate: bool,
    eps: float,
    x_dtype: torch.dtype,
    residual_dtype: torch.dtype,
    grad_y: Tensor,
    grad_stream: Tensor | None,
) -> list[Tensor]:
    """The gradients of x, of the residual where its dtype is another, of the gate, the weight and the bias."""
    from . import triton

    arguments = Arguments(stream, None, gate, weight, bias, layer, norm_before_gate, eps, grad_y.dtype)
    return triton.backward(arguments, x_dtype, residual_dtype, grad_y, grad_stream)


def _backward_fake(*values: Any) -> list[Tensor]:
    stream, gate, weight, bias, _, _, _, x_dtype, residual_dtype, *_ = values
    gradients = [stream.new_empty(stream.shape, dtype=d) for d in dict.fromkeys((x_dtype, residual_dtype))]
    return [*gradients, *pack_fake((gate, weight, bias))]


_norm = register("longscan::residual_norm", _forward, _forward_fake)
_norm_backward = register_backward("longscan::residual_norm_backward", _backward, _backward_fake)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, residual, gate, weight, bias, layer, norm_before_gate, eps, _, _ = inputs
    ctx.save_for_backward(x if residual is None else output[1], gate, weight, bias)
    ctx.options = (layer, norm_before_gate, eps, x.dtype, x.dtype if residual is None else residual.dtype)
    ctx.has_residual = residual is not None
    ctx.dtype = output[0].dtype
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_stream: Tensor | None) -> tuple[Tensor | None, ...]:
    stream, gate, weight, bias = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(stream, dtype=ctx.dtype)
    # Without a residual the second output is empty, and so is its gradient.
    grad_stream = grad_stream if ctx.has_residual else None
    gradients = iter(call(_norm_backward, stream, gate, weight, bias, *ctx.options, grad_y, grad_stream))
    grad_x = next(gradients)
    *_, x_dtype, residual_dtype = ctx.options
    grad_residual = grad_x if x_dtype == residual_dtype else next(gradients)
    others = [None if tensor is None else next(gradients) for tensor in (gate, weight, bias)]
    return (grad_x, grad_residual if ctx.has_residual else None, *others, None, None, None, None, None)


register_derivative(_norm, _differentiate, _setup_context)

#: Channels beyond which one row no longer fits the registers of a program.
WIDEST = 16384


def run(arguments: Arguments, keep: bool) -> tuple[Tensor, Tensor]:
    """y and the sum, which may be missing unless it is to be kept."""
    tensors = [tensor for tensor in arguments.differentiable if tensor is not None]
    if arguments.x.shape[-1] > WIDEST or any(tensor.dtype == torch.float64 for tensor in tensors):
        return plain.run(arguments)
    y, stream = call(_norm, *arguments, keep or needs_gradient(*tensors))
    return y, arguments.x if arguments.residual is None else stream
