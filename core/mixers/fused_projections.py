"""Linear layers beside which autograd would copy or add whole sequences: their gradients as the products need them.

Both compute what the plain layers do, and are those wherever something else takes part: a layer that is no longer a
plain ``nn.Linear`` (an adapter, a hook), a compiler, a tensor subclass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ..ops._operators import is_eager, needs_gradient


def project_in_halves(x: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Both halves of ``layer(x)``. Their gradients enter the products one after the other, without being joined."""
    if not _is_plain(layer, x) or layer.bias is not None:
        first, second = layer(x).chunk(2, dim=-1)
        return first, second
    return _Halves.apply(*_autocast(x, layer.weight))


def project_beside(x: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """``x`` for its other uses, and ``layer(x)``. The product for the gradient of ``x`` adds to that of the other uses,
    in place: only what allocates a gradient of its own, as operators do, may use it."""
    if not _is_plain(layer, x) or layer.bias is not None:
        return x, layer(x)
    return _Beside.apply(*_autocast(x, layer.weight))


def _is_plain(layer: nn.Module, x: Tensor) -> bool:
    if type(layer) is not nn.Linear or torch.compiler.is_compiling() or not is_eager((x, layer.weight)):
        return False
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return False
    if "forward" in vars(layer):  # replaced on this one layer
        return False
    return needs_gradient(x, layer.weight) and not _has_any_global_hook()


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the dtype that autocast gives a linear layer."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)


def _rows(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, tensor.shape[-1])


class _Halves(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        first, second = F.linear(x, weight).chunk(2, dim=-1)
        return first, second

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives
            grad = _rows(torch.cat(grads, dim=-1))
            return (grad @ weight).view(x.shape), grad.T @ _rows(x)
        first, second = (_rows(grad) for grad in grads)
        upper, lower = weight.chunk(2)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = (first @ upper).addmm_(second, lower).view(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.empty_like(weight)
            for grad, part in zip((first, second), grad_weight.chunk(2), strict=True):
                torch.mm(grad.T, _rows(x), out=part)
        return grad_x, grad_weight


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        return x.view_as(x), F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        other, grad = (_rows(grad) for grad in grads)
        grad_x = None
        if ctx.needs_input_grad[0]:
            fresh = other.is_contiguous() and not torch.is_grad_enabled()
            grad_x = (other.addmm_(grad, weight) if fresh else torch.addmm(other, grad, weight)).view(x.shape)
        grad_weight = grad.T @ _rows(x) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight
