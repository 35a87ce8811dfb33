"""The Vandermonde sums as PyTorch operators, so that compilers, exporters and autograd see one node each way."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._operators import pack, pack_fake, register, register_backward
from . import chunked
from .arguments import Arguments, MomentArguments


def _kernels(backend: str, dtype: torch.dtype) -> ModuleType:
    """What computes a backend: a module with the four passes."""
    if backend == "torch" or dtype in (torch.float64, torch.complex128):
        return chunked
    from . import triton

    return triton


def _forward(coefficients: Tensor, log_factors: Tensor, length: int, backend: str) -> Tensor:
    return _kernels(backend, coefficients.dtype).forward(Arguments(coefficients, log_factors, length))


def _forward_fake(coefficients: Tensor, log_factors: Tensor, length: int, backend: str) -> Tensor:
    arguments = Arguments(coefficients, log_factors, length)
    return coefficients.new_empty(arguments.shape, dtype=arguments.dtype)


def _backward(coefficients: Tensor, log_factors: Tensor, length: int, backend: str, grad: Tensor) -> list[Tensor]:
    arguments = Arguments(coefficients, log_factors, length)
    inputs = (coefficients, log_factors)
    return pack(_kernels(backend, coefficients.dtype).backward(arguments, grad), inputs)


def _moments(signal: Tensor, log_factors: Tensor, backend: str) -> Tensor:
    return _kernels(backend, signal.dtype).moments_forward(MomentArguments(signal, log_factors))


def _moments_fake(signal: Tensor, log_factors: Tensor, backend: str) -> Tensor:
    arguments = MomentArguments(signal, log_factors)
    return signal.new_empty(arguments.shape, dtype=arguments.dtype)


def _moments_backward(signal: Tensor, log_factors: Tensor, backend: str, grad: Tensor) -> list[Tensor]:
    arguments = MomentArguments(signal, log_factors)
    return pack(_kernels(backend, signal.dtype).moments_backward(arguments, grad), arguments)


_sums = register("longscan::vandermonde", _forward, _forward_fake)
_sums_backward = register_backward(
    "longscan::vandermonde_backward", _backward, lambda *arguments: pack_fake(arguments[:2])
)
_transposed = register("longscan::vandermonde_moments", _moments, _moments_fake)
_transposed_backward = register_backward(
    "longscan::vandermonde_moments_backward", _moments_backward, lambda *arguments: pack_fake(arguments[:2])
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_sums_backward(*ctx.saved_tensors, *ctx.options, grad), None, None)


def _differentiate_moments(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_transposed_backward(*ctx.saved_tensors, *ctx.options, grad), None)


torch.library.register_autograd("longscan::vandermonde", _differentiate, setup_context=_setup_context)
torch.library.register_autograd("longscan::vandermonde_moments", _differentiate_moments, setup_context=_setup_context)


def run(backend: str, arguments: Arguments) -> Tensor:
    """The kernels."""
    return _sums(*arguments, backend)


def run_moments(backend: str, arguments: MomentArguments) -> Tensor:
    """The moments."""
    return _transposed(*arguments, backend)
