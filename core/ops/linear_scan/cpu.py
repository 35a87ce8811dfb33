"""The linear scan on a CPU: compiled kernels on several threads, one task per part of the batch and channels."""

from __future__ import annotations

import torch
from torch import Tensor

from .._packing import sequence_offsets
from .._sequences import split
from .._threads import run_tasks
from .arguments import Arguments


def _rows(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, length, dim) as contiguous (tokens, dim)."""
    return tensor.detach().to(dtype).resolve_conj().reshape(-1, tensor.shape[-1]).contiguous()


def _initial(arguments: Arguments) -> Tensor:
    if arguments.initial_state is None:
        return arguments.x.new_zeros(arguments.sequences, arguments.x.shape[2], dtype=arguments.state_dtype)
    return _rows(arguments.initial_state, arguments.state_dtype)


def _run(kernel: object, arguments: Arguments, *tensors: Tensor) -> None:
    from .cpu_kernels import WIDTH

    batch, length, dim = arguments.x.shape
    offsets, _, parts = split(sequence_offsets("linear_scan", arguments.cu_seqlens, batch, length), 1)
    blocks = range(0, dim, WIDTH)
    arrays = [tensor.numpy() for tensor in tensors]

    def run(task: int) -> None:
        part, block = divmod(task, len(blocks))
        channel = blocks[block]
        width = min(WIDTH, dim - channel)
        kernel(parts[part], parts[part + 1], channel, width, offsets, arguments.reverse, *arrays)  # type: ignore[operator]

    run_tasks(run, (len(parts) - 1) * len(blocks))


def forward(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The states and the final states, in working precision."""
    from .cpu_kernels import forward as kernel

    dtype = arguments.state_dtype
    a, x, initial = _rows(arguments.a, dtype), _rows(arguments.x, dtype), _initial(arguments)
    y, final = torch.empty_like(x), torch.empty_like(initial)
    _run(kernel, arguments, a, x, initial, y, final)
    return y.view(arguments.x.shape), final


def backward(
    arguments: Arguments, y: Tensor, grad_y: Tensor, grad_final: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a, x and the initial state, in working precision."""
    from .cpu_kernels import backward as kernel

    dtype, shape = arguments.state_dtype, arguments.x.shape
    a, initial = _rows(arguments.a, dtype), _initial(arguments)
    final = torch.zeros_like(initial) if grad_final is None else _rows(grad_final, dtype)
    grad_a, grad_x, grad_initial = torch.empty_like(a), torch.empty_like(a), torch.empty_like(initial)
    _run(
        kernel,
        arguments,
        *(a, _rows(y, dtype), initial, _rows(grad_y, dtype), final),
        *(grad_a, grad_x, grad_initial),
    )
    return grad_a.view(shape), grad_x.view(shape), grad_initial
