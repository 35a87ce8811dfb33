# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The Vandermonde sums in Triton: one program for some rows of a channel's (coarse, fine) table of positions.

With l = coarse · T + fine, a power is the product of two from tables that plain PyTorch makes in float64 (see
``chunked``), so that no phase is formed in float32. A program holds the fine table's part of its columns, and sums over
modes as products of small matrices, or, for the moments, over positions. Unlike cuBLAS it never rounds to
TensorFloat-32, and writes kernels in place and in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import chunked
from .arguments import Arguments, MomentArguments

_ROWS, _COLUMNS, _MODES = 32, 64, 32


@triton.jit
def _evaluate(
    left, right, kernel, length, coarse, fine, inner, dim, row_blocks, column_blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """kernel[c, h, row · fine + column] = sum_m left[c, h, row, m] right[h, m, column]."""
    program = tl.program_id(0).to(tl.int64)
    column_block = program % column_blocks
    program = program // column_blocks
    row_block = program % row_blocks
    series = program // row_blocks  # c · dim + h
    channel = series % dim
    rows = row_block * ROWS + tl.arange(0, ROWS)
    columns = column_block * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for begin in range(0, inner, INNER):
        m = begin + tl.arange(0, INNER)
        here = m < inner
        a = tl.load(
            left + (series * coarse + rows[:, None]) * inner + m[None, :],
            (rows < coarse)[:, None] & here[None, :], 0.0,
        )  # fmt: skip
        b = tl.load(
            right + (channel * inner + m[:, None]) * fine + columns[None, :],
            here[:, None] & (columns < fine)[None, :], 0.0,
        )  # fmt: skip
        total += tl.dot(a, b, input_precision="ieee")
    position = rows[:, None] * fine + columns[None, :]
    valid = (rows < coarse)[:, None] & (columns < fine)[None, :] & (position < length)
    tl.store(kernel + series * length + position, total, valid)


@triton.jit
def _sum(
    signal, table, sums, length, coarse, fine, inner, dim, row_blocks, mode_blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """sums[c, h, row, m] = sum_column signal[c, h, row · fine + column] table[h, column, m] (column)."""
    program = tl.program_id(0).to(tl.int64)
    mode_block = program % mode_blocks
    program = program // mode_blocks
    row_block = program % row_blocks
    series = program // row_blocks
    all_series = tl.num_programs(0).to(tl.int64) // (row_blocks * mode_blocks)
    channel = series % dim
    rows = row_block * ROWS + tl.arange(0, ROWS)
    m = mode_block * INNER + tl.arange(0, INNER)
    total = tl.zeros((ROWS, INNER), tl.float32)
    weighted = tl.zeros((ROWS, INNER), tl.float32)
    for begin in range(0, fine, COLUMNS):
        columns = begin + tl.arange(0, COLUMNS)
        position = rows[:, None] * fine + columns[None, :]
        valid = (rows < coarse)[:, None] & (columns < fine)[None, :] & (position < length)
        a = tl.load(signal + series * length + position, valid, 0.0)
        b = tl.load(
            table + (channel * fine + columns[:, None]) * inner + m[None, :],
            (columns < fine)[:, None] & (m < inner)[None, :], 0.0,
        )  # fmt: skip
        total += tl.dot(a, b, input_precision="ieee")
        if WEIGHTED:
            weighted += tl.dot(a * columns[None, :].to(tl.float32), b, input_precision="ieee")
    place = (series * coarse + rows[:, None]) * inner + m[None, :]
    valid = (rows < coarse)[:, None] & (m < inner)[None, :]
    tl.store(sums + place, total, valid)
    if WEIGHTED:
        tl.store(sums + all_series * coarse * inner + place, weighted, valid)


class _Tables:
    """Powers of all channels in float32; see ``chunked``."""

    def __init__(self, log_factors: Tensor, length: int) -> None:
        self.length, self.fine_steps = length, chunked.fine_steps(length)
        self.coarse_steps = -(-length // self.fine_steps)
        logs = log_factors.to(torch.complex128)[..., None]
        steps = torch.arange(max(self.fine_steps, self.coarse_steps), device=logs.device, dtype=torch.float64)
        self.fine = torch.exp(logs * steps[: self.fine_steps]).to(torch.complex64)
        """(dim, state, fine_steps)."""
        self.coarse = torch.exp(logs * (steps[: self.coarse_steps] * self.fine_steps)).to(torch.complex64)
        """(dim, state, coarse_steps)."""

    def evaluate(self, coefficients: Tensor) -> Tensor:
        """2 Re sum_n coefficients power: (channels, dim, state) to (channels, dim, length)."""
        channels, dim, state = coefficients.shape
        left = ((2 * coefficients)[..., None] * self.coarse).transpose(2, 3)
        left = torch.cat([left.real, -left.imag], dim=3).contiguous()
        right = torch.cat([self.fine.real, self.fine.imag], dim=1).contiguous()
        kernel = torch.empty(channels, dim, self.length, dtype=torch.float32, device=coefficients.device)
        rows, columns = triton.cdiv(self.coarse_steps, _ROWS), triton.cdiv(self.fine_steps, _COLUMNS)
        _evaluate[(channels * dim * rows * columns,)](
            left, right, kernel, self.length, self.coarse_steps, self.fine_steps, 2 * state, dim, rows, columns,
            ROWS=_ROWS, COLUMNS=_COLUMNS, INNER=_MODES,
        )  # fmt: skip
        return kernel

    def moments(self, signal: Tensor, weighted: bool) -> tuple[Tensor, Tensor | None]:
        """sum_l signal power, and if ``weighted`` sum_l l signal power in complex128: (channels, dim, state)."""
        channels, dim, _ = signal.shape
        state = self.fine.shape[1]
        table = torch.view_as_real(self.fine.transpose(1, 2).contiguous())
        sums = torch.empty(
            2 if weighted else 1, channels, dim, self.coarse_steps, state, 2, dtype=torch.float32, device=signal.device
        )
        rows, modes = triton.cdiv(self.coarse_steps, _ROWS), triton.cdiv(2 * state, _MODES)
        _sum[(channels * dim * rows * modes,)](
            signal.contiguous(), table, sums, self.length, self.coarse_steps, self.fine_steps, 2 * state, dim, rows,
            modes, ROWS=_ROWS, COLUMNS=_COLUMNS, INNER=_MODES, WEIGHTED=weighted,
        )  # fmt: skip
        products = torch.view_as_complex(sums) * self.coarse.transpose(1, 2)
        if not weighted:
            return products[0].sum(2), None
        start = torch.arange(self.coarse_steps, device=signal.device, dtype=torch.float64) * self.fine_steps
        wide = products.to(torch.complex128)
        return products[0].sum(2), (wide[0] * start[:, None] + wide[1]).sum(2)


def forward(arguments: Arguments) -> Tensor:
    """The kernels."""
    return _Tables(arguments.log_factors, arguments.length).evaluate(arguments.coefficients)


def backward(arguments: Arguments, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the coefficients and of log_factors; formulas in ``chunked``."""
    coefficients, log_factors, length = arguments
    plain, weighted = _Tables(log_factors, length).moments(grad.float(), weighted=True)
    assert weighted is not None
    return 2 * plain.conj(), (2 * (coefficients * weighted).sum(0).conj()).to(log_factors.dtype)


def moments_forward(arguments: MomentArguments) -> Tensor:
    """The moments."""
    signal, log_factors = arguments
    return _Tables(log_factors, signal.shape[2]).moments(signal.float(), weighted=False)[0]


def moments_backward(arguments: MomentArguments, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the signal and of log_factors; formulas in ``chunked``."""
    signal, log_factors = arguments
    tables = _Tables(log_factors, signal.shape[2])
    _, weighted = tables.moments(signal.float(), weighted=True)
    assert weighted is not None
    grad_signal = tables.evaluate(grad.to(torch.complex64).conj() / 2).to(signal.dtype)
    return grad_signal, (grad * weighted.conj()).sum(0).to(log_factors.dtype)
