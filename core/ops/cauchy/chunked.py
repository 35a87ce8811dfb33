"""The Cauchy sums block by block, for any device: fractions of a block in real numbers, then a matrix product.

With p = a + ib and d = w - s b the first fraction is 1 / (-s a + i d) = (-s a - i d) / (s² a² + d²), and the one of the
conjugate pole has w + s b in place of d.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .._full_precision import full_precision
from .arguments import Arguments

# Entries of the table of fractions in a block: it should stay in a cache, or fill a GPU.
_BLOCK = {"cpu": 1 << 13}
_BLOCK_DEFAULT = 1 << 24


class _Fractions:
    """1 / (i w - s p) and 1 / (i w - s conj p) for some channels and frequencies, each (rows, state, number)."""

    def __init__(self, arguments: Arguments, rows: slice, columns: slice) -> None:
        coefficients, poles, frequencies, scales = arguments
        dtype = coefficients.real.dtype
        p = poles[rows].to(torch.complex128)[..., None]
        w, s = frequencies[columns].double(), scales[columns].double()
        imaginary = s * p.imag
        decay = (s * -p.real).to(dtype)
        self.plain = _invert(decay, (w - imaginary).to(dtype))
        self.mirrored = _invert(decay, (w + imaginary).to(dtype))
        self.scales = s.to(dtype)


def _invert(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of 1 / (real + i imaginary)."""
    norm = torch.reciprocal(real.square() + imaginary.square())
    return real * norm, imaginary.neg() * norm


def _square(value: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    real, imaginary = value
    return real.square() - imaginary.square(), 2 * real * imaginary


def _blocks(arguments: Arguments) -> Iterator[tuple[slice, slice]]:
    """(channels, frequencies)."""
    _, dim, number = arguments.shape
    budget = _BLOCK.get(arguments.poles.device.type, _BLOCK_DEFAULT)
    columns = max(1, min(number, budget // arguments.poles.shape[1]))
    rows = max(1, min(dim, budget // (columns * arguments.poles.shape[1])))
    for row in range(0, dim, rows):
        for column in range(0, number, columns):
            yield slice(row, min(row + rows, dim)), slice(column, min(column + columns, number))


def forward(arguments: Arguments) -> Tensor:
    """The responses."""
    coefficients = arguments.coefficients
    result = torch.empty(arguments.shape, dtype=coefficients.dtype, device=coefficients.device)
    parts = torch.view_as_real(result)
    with full_precision(coefficients.device):
        for rows, columns in _blocks(arguments):
            (a, b), (c, d) = (value := _Fractions(arguments, rows, columns)).plain, value.mirrored
            v = coefficients[:, rows].transpose(0, 1)
            weights = torch.cat([v.real, v.imag], dim=2)
            real = torch.bmm(weights, torch.cat([a + c, d - b], dim=1))
            imaginary = torch.bmm(weights, torch.cat([b + d, a - c], dim=1))
            parts[:, rows, columns, 0] = real.transpose(0, 1)
            parts[:, rows, columns, 1] = imaginary.transpose(0, 1)
    return result


def backward(arguments: Arguments, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the coefficients and the poles.

    With f = 1 / (i w - s p), g the same of conj(p): dv = sum_j G conj(f) + conj(G) g, and
    dp = sum_j s (G conj(v f²) + conj(G) conj(v) g²) = conj(v) sum_j s (G conj(f²) + conj(G) g²).
    """
    coefficients, poles = arguments.coefficients, arguments.poles
    channels, dim, _ = arguments.shape
    state = poles.shape[1]
    # Sums over blocks of frequencies are kept wide: there may be many.
    sums = torch.zeros(2, dim, channels, 2 * state, dtype=torch.float64, device=poles.device)
    parts = torch.view_as_real(grad.to(coefficients.dtype).resolve_conj())
    with full_precision(coefficients.device):
        for rows, columns in _blocks(arguments):
            value = _Fractions(arguments, rows, columns)
            g = parts[:, rows, columns].permute(1, 0, 3, 2).reshape(-1, channels, 2 * value.scales.shape[0])
            squares = [(x * value.scales, y * value.scales) for x, y in map(_square, (value.plain, value.mirrored))]
            for power, ((a, b), (c, d)) in enumerate(((value.plain, value.mirrored), squares)):
                # Re = Gr (a + c) + Gi (b + d), Im = Gr (d - b) + Gi (a - c)
                table = torch.cat([torch.cat([a + c, b + d], dim=2), torch.cat([d - b, a - c], dim=2)], dim=1)
                sums[power, rows] += torch.bmm(g, table.transpose(1, 2))
    total = torch.complex(sums[..., :state], sums[..., state:]).transpose(1, 2)
    grad_poles = (coefficients.conj() * total[1]).sum(0)
    return total[0].to(coefficients.dtype), grad_poles.to(poles.dtype)
