"""The long convolution as PyTorch operators, so that compilers, exporters and autograd see one node each way."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._operators import pack, pack_fake, register, register_backward, unpack
from . import chunked
from .arguments import Arguments

#: What computes each backend: a module with ``forward`` and ``backward``.
KERNELS: dict[str, ModuleType] = {"cpu": chunked, "torch": chunked}


def _forward(
    u: Tensor,
    kernel: Tensor,
    skip: Tensor | None,
    gate_in: Tensor | None,
    gate_out: Tensor | None,
    causal: bool,
    reverse: bool,
    backend: str,
) -> Tensor:
    return KERNELS[backend].forward(Arguments(u, kernel, skip, gate_in, gate_out, causal, reverse))


def _backward(
    u: Tensor,
    kernel: Tensor,
    skip: Tensor | None,
    gate_in: Tensor | None,
    gate_out: Tensor | None,
    causal: bool,
    reverse: bool,
    backend: str,
    grad_y: Tensor,
) -> list[Tensor]:
    arguments = Arguments(u, kernel, skip, gate_in, gate_out, causal, reverse)
    return pack(KERNELS[backend].backward(arguments, grad_y), arguments.differentiable)


_conv = register("longscan::long_conv", _forward, lambda u, *rest: u.new_empty(u.shape))
_conv_backward = register_backward(
    "longscan::long_conv_backward", _backward, lambda *arguments: pack_fake(arguments[:5])
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, causal, reverse, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = (causal, reverse, backend)


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    gradients = _conv_backward(*tensors, *ctx.options, grad_y)
    return (*unpack(gradients, tensors), None, None, None)


torch.library.register_autograd("longscan::long_conv", _differentiate, setup_context=_setup_context)


def run(backend: str, arguments: Arguments) -> Tensor:
    """y."""
    return _conv(*arguments, backend)
