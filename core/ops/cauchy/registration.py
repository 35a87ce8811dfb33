"""The Cauchy sums as a PyTorch operator, so that compilers, exporters and autograd see one node each way."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._operators import pack, pack_fake, register, register_backward
from . import chunked, cpu
from .arguments import Arguments


def _kernels(backend: str, dtype: torch.dtype) -> ModuleType:
    """What computes a backend: a module with ``forward`` and ``backward``."""
    if backend == "cpu":
        return cpu
    if backend == "torch" or dtype == torch.complex128:
        return chunked
    from . import triton

    return triton


def _forward(coefficients: Tensor, poles: Tensor, frequencies: Tensor, scales: Tensor, backend: str) -> Tensor:
    arguments = Arguments(coefficients, poles, frequencies, scales)
    return _kernels(backend, coefficients.dtype).forward(arguments)


def _forward_fake(coefficients: Tensor, poles: Tensor, frequencies: Tensor, scales: Tensor, backend: str) -> Tensor:
    return coefficients.new_empty(Arguments(coefficients, poles, frequencies, scales).shape)


def _backward(
    coefficients: Tensor, poles: Tensor, frequencies: Tensor, scales: Tensor, backend: str, grad: Tensor
) -> list[Tensor]:
    arguments = Arguments(coefficients, poles, frequencies, scales)
    return pack(_kernels(backend, coefficients.dtype).backward(arguments, grad), (coefficients, poles))


_sums = register("longscan::cauchy", _forward, _forward_fake)
_sums_backward = register_backward("longscan::cauchy_backward", _backward, lambda *arguments: pack_fake(arguments[:2]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.backend = backend


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_sums_backward(*ctx.saved_tensors, ctx.backend, grad), None, None, None)


torch.library.register_autograd("longscan::cauchy", _differentiate, setup_context=_setup_context)


def run(backend: str, arguments: Arguments) -> Tensor:
    """The responses."""
    return _sums(*arguments, backend)
