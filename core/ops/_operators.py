"""Registration of an operator and its backward pass with PyTorch's dispatcher.

``torch.library.custom_op`` does the same, but imports the whole compiler (seconds) on the first call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def register(
    name: str, function: Callable[..., Any], fake: Callable[..., Any], mutates_args: Sequence[str] = ()
) -> Any:
    """Define the operator ``name`` with the signature of ``function``; ``fake`` gives shapes and dtypes alone.

    Autocast is off inside: an operator chooses its own precision. Returns the overload to call.
    """
    schema = torch.library.infer_schema(function, mutates_args=mutates_args)
    torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(name, "default", _without_autocast(function))
    torch.library.register_fake(name, fake)
    namespace, operator = name.split("::")
    return getattr(getattr(torch.ops, namespace), operator).default


def register_backward(name: str, function: Callable[..., list[Tensor]], fake: Callable[..., list[Tensor]]) -> Any:
    """Like :func:`register`, for the backward pass of an operator, which itself cannot be differentiated."""
    overload = register(name, function, fake)

    def refuse(context: Any, *gradients: Any) -> None:
        raise RuntimeError(f"{name} has no derivative; for second derivatives use backend='reference'")

    torch.library.register_autograd(name, refuse)
    return overload


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether a backward pass may follow, so that its intermediate results are worth keeping."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def pack(gradients: Sequence[Tensor | None], inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """The gradients of those inputs that are given, in the inputs' dtypes: what a backward operator returns."""
    return [
        gradient.to(tensor.dtype).contiguous()
        for gradient, tensor in zip(gradients, inputs, strict=True)
        if gradient is not None and tensor is not None
    ]


def pack_fake(inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Empty tensors like those of :func:`pack`."""
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in inputs if t is not None]


def unpack(gradients: Sequence[Tensor], inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Undo :func:`pack`: None again for the inputs that are None."""
    remaining = iter(gradients)
    return [None if tensor is None else next(remaining) for tensor in inputs]


def _without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with autocast off, on the GPU of its first argument: Triton launches on the current one."""

    @wraps(function)
    def run(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as context:
            if torch.is_autocast_enabled(first.device.type):
                context.enter_context(torch.autocast(first.device.type, enabled=False))
            if first.is_cuda and first.device.index != torch.cuda.current_device():
                context.enter_context(torch.cuda.device(first.device))
            return function(first, *args, **kwargs)

    return run
