"""Registration of an operator and its backward pass with PyTorch's dispatcher.

``torch.library.custom_op`` does the same, but imports the whole compiler (seconds) on the first call.

The dispatcher is there for compilers, exporters, modes and subclasses of tensors. Where there are none of these it
costs more time than a small kernel takes (twice 15 to 30 microseconds), and :func:`call` goes past it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

#: For every operator its function and, where it has a derivative, the same as an autograd function.
_DIRECT: dict[Any, tuple[Callable[..., Any], Any]] = {}


def register(
    name: str, function: Callable[..., Any], fake: Callable[..., Any], mutates_args: Sequence[str] = ()
) -> Any:
    """Define the operator ``name`` with the signature of ``function``; ``fake`` gives shapes and dtypes alone.

    Autocast is off inside: an operator chooses its own precision. Returns the overload to call.
    """
    schema = torch.library.infer_schema(function, mutates_args=mutates_args)
    torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
    implementation = _without_autocast(function)
    torch.library.impl(name, "default", implementation)
    torch.library.register_fake(name, fake)
    namespace, operator = name.split("::")
    overload = getattr(getattr(torch.ops, namespace), operator).default
    _DIRECT[overload] = (implementation, None)
    return overload


def register_derivative(overload: Any, differentiate: Callable[..., Any], setup_context: Callable[..., None]) -> None:
    """Give an operator of :func:`register` its derivative; the arguments of ``torch.library.register_autograd``."""
    torch.library.register_autograd(overload, differentiate, setup_context=setup_context)
    function, _ = _DIRECT[overload]

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = function(*inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return differentiate(ctx, *gradients)

    _DIRECT[overload] = (function, Direct)


def call(overload: Any, *arguments: Any) -> Any:
    """``overload(*arguments)``, past PyTorch's dispatcher where nothing but autograd would take note of the call."""
    if torch.compiler.is_compiling() or not is_eager(arguments) or overload not in _DIRECT:
        return overload(*arguments)
    function, differentiable = _DIRECT[overload]
    if not needs_gradient(*arguments):
        return function(*arguments)
    return overload(*arguments) if differentiable is None else differentiable.apply(*arguments)


def is_eager(arguments: Sequence[Any]) -> bool:
    """Whether there are only tensors of PyTorch's own kind, and neither mode nor transform nor tracer is at work."""
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active() or torch._C._is_tracing():
        return False
    return all(not isinstance(a, Tensor) or type(a) is Tensor or type(a) is Parameter for a in arguments)


def register_backward(name: str, function: Callable[..., list[Tensor]], fake: Callable[..., list[Tensor]]) -> Any:
    """Like :func:`register`, for the backward pass of an operator, which itself cannot be differentiated."""
    overload = register(name, function, fake)

    def refuse(context: Any, *gradients: Any) -> None:
        raise RuntimeError(f"{name} has no derivative; for second derivatives use backend='reference'")

    torch.library.register_autograd(name, refuse)
    return overload


def needs_gradient(*arguments: Any) -> bool:
    """Whether a backward pass may follow, so that its intermediate results are worth keeping."""
    return torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments)


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
        device = first.device
        autocast = torch.is_autocast_enabled(device.type)
        elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
        if not autocast and not elsewhere:
            return function(first, *args, **kwargs)
        with contextlib.ExitStack() as context:
            if autocast:
                context.enter_context(torch.autocast(device.type, enabled=False))
            if elsewhere:
                context.enter_context(torch.cuda.device(device))
            return function(first, *args, **kwargs)

    return run
