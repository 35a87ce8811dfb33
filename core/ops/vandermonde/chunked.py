"""The Vandermonde sums as products of two small tables of powers, some channels at a time, for any device.

With l = coarse · T + fine, a power is coarse_power · fine_power; both tables have about sqrt(length) columns, made in
float64. The sums over modes, and over a block of the length, are then matrix products of real numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .._dtypes import complex_dtype
from .._full_precision import full_precision
from .arguments import Arguments, MomentArguments

# Real numbers in the tables and results of one block of channels (128 MiB in float32).
_BUDGET = 1 << 25


class _Tables:
    """Powers of the modes ``rows`` (channels) of ``log_factors``."""

    def __init__(self, log_factors: Tensor, rows: slice, length: int, dtype: torch.dtype) -> None:
        self.rows, self.length = rows, length
        self.fine_steps = fine_steps(length)
        self.coarse_steps = -(-length // self.fine_steps)
        logs = log_factors[rows].to(torch.complex128)[..., None]
        steps = torch.arange(max(self.fine_steps, self.coarse_steps), device=logs.device, dtype=torch.float64)
        self.fine = torch.exp(logs * steps[: self.fine_steps]).to(dtype)
        """(rows, state, fine_steps)."""
        self.coarse = torch.exp(logs * (steps[: self.coarse_steps] * self.fine_steps)).to(dtype)
        """(rows, state, coarse_steps)."""

    def evaluate(self, coefficients: Tensor) -> Tensor:
        """2 Re sum_n coefficients power: (channels, rows, state) to (channels, rows, length)."""
        channels, rows, state = coefficients.shape
        left = (2 * coefficients)[..., None] * self.coarse  # (channels, rows, state, coarse)
        left = torch.cat([left.real, -left.imag], dim=2).permute(1, 0, 3, 2)
        right = torch.cat([self.fine.real, self.fine.imag], dim=1)
        blocks = torch.bmm(left.reshape(rows, channels * self.coarse_steps, 2 * state), right)
        whole = blocks.view(rows, channels, self.coarse_steps * self.fine_steps)
        return whole[..., : self.length].transpose(0, 1)

    def moments(self, signal: Tensor, weighted: bool) -> tuple[Tensor, Tensor | None]:
        """sum_l signal power, and if ``weighted`` sum_l l signal power: both (channels, rows, state), the latter wide.

        The weighted one is in complex128: lengths are large factors.
        """
        channels, rows, _ = signal.shape
        padded = torch.nn.functional.pad(signal, (0, self.coarse_steps * self.fine_steps - self.length))
        blocks = padded.transpose(0, 1).reshape(rows, channels * self.coarse_steps, self.fine_steps)
        plain = self._within(blocks, self.fine, channels)
        products = plain * self.coarse
        total = products.sum(-1)
        if not weighted:
            return total, None
        steps = torch.arange(self.fine_steps, device=signal.device, dtype=signal.dtype)
        wide = torch.complex128
        start = torch.arange(self.coarse_steps, device=signal.device, dtype=torch.float64) * self.fine_steps
        inner = (self._within(blocks, self.fine * steps, channels) * self.coarse).sum(-1)
        return total, (products.to(wide) * start).sum(-1) + inner.to(wide)

    def _within(self, blocks: Tensor, powers: Tensor, channels: int) -> Tensor:
        """Sums over the fine steps: (channels, rows, state, coarse_steps)."""
        rows, state, steps = powers.shape
        table = torch.view_as_real(powers.transpose(1, 2).contiguous()).reshape(rows, steps, 2 * state)
        sums = torch.bmm(blocks, table).view(rows, channels, self.coarse_steps, state, 2)
        return torch.view_as_complex(sums).permute(1, 0, 3, 2)


def fine_steps(length: int) -> int:
    """T: a power of two next to the square root of the length."""
    return 1 << max(0, math.ceil(math.log2(length) / 2))


def _row_blocks(shape: Sequence[int], state: int) -> Iterator[slice]:
    """Ranges of ``dim`` whose tables and results (channels, dim, length) fit the budget."""
    channels, dim, length = shape
    fine = fine_steps(length)
    each = channels * length + 4 * state * fine * (1 + channels)
    step = max(1, min(dim, _BUDGET // each))
    for begin in range(0, dim, step):
        yield slice(begin, min(begin + step, dim))


def forward(arguments: Arguments) -> Tensor:
    """The kernels."""
    coefficients, log_factors, length = arguments
    kernel = torch.empty(arguments.shape, dtype=arguments.dtype, device=coefficients.device)
    with full_precision(coefficients.device):
        for rows in _row_blocks(arguments.shape, log_factors.shape[1]):
            tables = _Tables(log_factors, rows, length, coefficients.dtype)
            kernel[:, rows] = tables.evaluate(coefficients[:, rows])
    return kernel


def backward(arguments: Arguments, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the coefficients and of log_factors: 2 conj(sum_l g E) and 2 conj(sum_c C sum_l l g E)."""
    coefficients, log_factors, length = arguments
    grad_coefficients = torch.empty_like(coefficients, memory_format=torch.contiguous_format)
    grad_logs = torch.empty_like(log_factors, memory_format=torch.contiguous_format)
    with full_precision(coefficients.device):
        for rows in _row_blocks(arguments.shape, log_factors.shape[1]):
            tables = _Tables(log_factors, rows, length, coefficients.dtype)
            plain, weighted = tables.moments(grad[:, rows].to(arguments.dtype), weighted=True)
            assert weighted is not None
            grad_coefficients[:, rows] = 2 * plain.conj()
            grad_logs[rows] = (2 * (coefficients[:, rows] * weighted).sum(0).conj()).to(grad_logs.dtype)
    return grad_coefficients, grad_logs


def moments_forward(arguments: MomentArguments) -> Tensor:
    """The moments."""
    signal, log_factors = arguments
    moments = torch.empty(arguments.shape, dtype=arguments.dtype, device=signal.device)
    with full_precision(signal.device):
        for rows in _row_blocks(signal.shape, log_factors.shape[1]):
            tables = _Tables(log_factors, rows, signal.shape[2], arguments.dtype)
            moments[:, rows], _ = tables.moments(signal[:, rows].to(moments.real.dtype), weighted=False)
    return moments


def moments_backward(arguments: MomentArguments, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the signal, Re sum_n conj(g) E, and of log_factors, sum_c g conj(sum_l l signal E)."""
    signal, log_factors = arguments
    real = torch.float64 if signal.dtype == torch.float64 else torch.float32
    grad_signal = torch.empty_like(signal, memory_format=torch.contiguous_format)
    grad_logs = torch.empty_like(log_factors, memory_format=torch.contiguous_format)
    with full_precision(signal.device):
        for rows in _row_blocks(signal.shape, log_factors.shape[1]):
            tables = _Tables(log_factors, rows, signal.shape[2], complex_dtype(real))
            part = grad[:, rows].to(complex_dtype(real))
            grad_signal[:, rows] = tables.evaluate(part.conj() / 2).to(signal.dtype)
            _, weighted = tables.moments(signal[:, rows].to(real), weighted=True)
            assert weighted is not None
            grad_logs[rows] = (part * weighted.conj()).sum(0).to(grad_logs.dtype)
    return grad_signal, grad_logs
