"""The Cauchy sums on a CPU: compiled kernels on several threads, one task per channel and range of frequencies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._threads import run_tasks
from .arguments import Arguments

# Frequencies of a task.
_RANGE = 1 << 14


def _real(tensor: Tensor) -> np.ndarray:
    """A complex tensor as an array with a last axis of real and imaginary part."""
    return torch.view_as_real(tensor.detach().resolve_conj().contiguous()).numpy()


def _shared(arguments: Arguments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frequencies, scales = (t.detach().double().contiguous().numpy() for t in arguments[2:])
    return _real(arguments.poles.to(torch.complex128)), frequencies, scales


def forward(arguments: Arguments) -> Tensor:
    """The responses."""
    from .cpu_kernels import forward as kernel

    _, dim, number = arguments.shape
    result = torch.empty(arguments.shape, dtype=arguments.coefficients.dtype)
    out, v = torch.view_as_real(result).numpy(), _real(arguments.coefficients)
    poles, frequencies, scales = _shared(arguments)
    ranges = range(0, number, _RANGE)

    def run(task: int) -> None:
        channel, part = divmod(task, len(ranges))
        start = ranges[part]
        kernel(channel, start, min(start + _RANGE, number), v, poles, frequencies, scales, out)

    run_tasks(run, dim * len(ranges))
    return result


def backward(arguments: Arguments, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the coefficients and the poles; formulas in ``chunked.backward``."""
    from .cpu_kernels import backward as kernel

    coefficients, poles = arguments.coefficients, arguments.poles
    channels, dim, number = arguments.shape
    given = _real(grad.to(coefficients.dtype))
    shared = _shared(arguments)
    ranges = range(0, number, _RANGE)
    sums = torch.zeros(dim, len(ranges), 2, channels, poles.shape[1], 2, dtype=torch.float64)
    array = sums.numpy()

    def run(task: int) -> None:
        channel, part = divmod(task, len(ranges))
        start = ranges[part]
        kernel(channel, start, min(start + _RANGE, number), *shared, given, array[channel, part])

    run_tasks(run, dim * len(ranges))
    total = torch.view_as_complex(sums.sum(1)).permute(1, 2, 0, 3)
    grad_poles = (coefficients.conj() * total[1]).sum(0)
    return total[0].to(coefficients.dtype), grad_poles.to(poles.dtype)
