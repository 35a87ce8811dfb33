"""The short convolution on a CPU: compiled kernels on several threads, one task per part of batch and channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._dtypes import accumulation_dtype
from .._packing import sequence_offsets
from .._sequences import Sequences, split
from .._threads import run_tasks
from .arguments import Arguments


def _sequences(arguments: Arguments) -> Sequences:
    batch, length, _ = arguments.x.shape
    return split(sequence_offsets("short_conv", arguments.cu_seqlens, batch, length), 1)


def _inputs(arguments: Arguments) -> list[Tensor]:
    """x (tokens, dim), weight (taps, dim), bias (dim,) and the initial state, contiguous and of one dtype."""
    x, weight, bias, initial_state, *_ = arguments
    dtype, dim = accumulation_dtype(x.dtype), x.shape[2]
    bias = x.new_zeros(dim) if bias is None else bias
    initial = x.new_zeros(arguments.state_shape) if initial_state is None else initial_state
    return [t.detach().to(dtype).contiguous() for t in (x.reshape(-1, dim), weight.T, bias, initial)]


def _for_each_block(parts: list[int], dim: int, call: Callable[[int, int, int], None]) -> None:
    """``call(part, channel, width)`` for every part and block of channels, on several threads."""
    from .cpu_kernels import WIDTH

    blocks = range(0, dim, WIDTH)

    def run(task: int) -> None:
        part, block = divmod(task, len(blocks))
        call(part, blocks[block], min(WIDTH, dim - blocks[block]))

    run_tasks(run, (len(parts) - 1) * len(blocks))


def forward(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the final states, in working precision."""
    from .cpu_kernels import forward as kernel

    inputs = _inputs(arguments)
    y, final = torch.empty_like(inputs[0]), torch.empty_like(inputs[3])
    arrays = [tensor.numpy() for tensor in (*inputs, y, final)]
    offsets, _, parts = _sequences(arguments)

    def call(part: int, channel: int, width: int) -> None:
        kernel(parts[part], parts[part + 1], channel, width, offsets, arguments.reverse, arguments.silu, *arrays)

    _for_each_block(parts, y.shape[1], call)
    return y.view(arguments.x.shape), final if arguments.want_final else final.new_empty(arguments.final_shape)


def backward(arguments: Arguments, grad_y: Tensor, grad_final: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight, bias and the initial state, in working precision."""
    from .cpu_kernels import backward as kernel

    inputs = _inputs(arguments)
    x, weight, _, initial = inputs
    dim = x.shape[1]
    offsets, _, parts = _sequences(arguments)
    final = torch.zeros_like(initial) if grad_final is None else grad_final.to(x.dtype).contiguous()
    grad_x, grad_initial = torch.empty_like(x), torch.empty_like(initial)
    grad_weight = x.new_empty(len(parts) - 1, *weight.shape)
    grad_bias = x.new_empty(len(parts) - 1, dim)
    tensors = (*inputs, grad_y.to(x.dtype).reshape(-1, dim).contiguous(), final)
    arrays = [tensor.numpy() for tensor in (*tensors, grad_x, grad_weight, grad_bias, grad_initial)]

    def call(part: int, channel: int, width: int) -> None:
        kernel(parts[part], parts[part + 1], part, channel, width, offsets, arguments.reverse, arguments.silu, *arrays)

    _for_each_block(parts, dim, call)
    return grad_x.view(arguments.x.shape), grad_weight.sum(0).T, grad_bias.sum(0), grad_initial
