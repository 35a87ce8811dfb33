"""The Triton kernels of vandermonde and cauchy: on a GPU where there is one, else through Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from operator_cases import complexed, normal
from torch import Tensor

from longscan.core.ops import cauchy, vandermonde, vandermonde_moments

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def modes(*shape: int) -> Tensor:
    return torch.complex(-0.01 * torch.rand(*shape, dtype=torch.float64), normal(*shape))


def agree(found: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    assert found.shape == expected.shape
    assert found.isfinite().all()
    difference = (found.cpu() - expected).abs().max() / expected.abs().max().clamp(min=1e-9)
    assert difference <= tolerance, f"relative difference {difference:.1e}"


@pytest.mark.parametrize("channels, dim, state, length", [(1, 2, 3, 1), (2, 3, 5, 50), (3, 1, 33, 2500), (1, 2, 1, 64)])
def test_against_the_reference(channels: int, dim: int, state: int, length: int) -> None:
    coefficients, p = complexed(normal(channels, dim, state)).to(torch.complex64), modes(dim, state)
    signal, weight = (torch.randn(channels, dim, length) for _ in range(2))
    half = math.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length
    from_moments = complexed(torch.randn(channels, dim, state))
    from_response = complexed(torch.randn(channels, dim, length // 2 + 1))

    def run(device: str, backend: str) -> list[Tensor]:
        c, s, q = (t.detach().to(device).requires_grad_() for t in (coefficients, signal, p))
        nodes = (2 * torch.sin(half).to(device), torch.cos(half).to(device))
        kernel = vandermonde(c, q, length, backend=backend)
        moments = vandermonde_moments(s, q, backend=backend)
        response = cauchy(c, q, *nodes, backend=backend)
        return [
            *(kernel, *torch.autograd.grad((kernel * weight.to(device)).sum(), (c, q))),
            *(moments, *torch.autograd.grad((moments * from_moments.to(device)).real.sum(), (s, q))),
            *(response, *torch.autograd.grad((response * from_response.to(device)).real.sum(), (c, q))),
        ]

    for found, expected in zip(run(DEVICE, "triton"), run("cpu", "reference"), strict=True):
        agree(found.detach(), expected.detach())


def test_large_phases() -> None:
    """At the last of 2^14 (on a GPU a million) positions, phases of 1e5 (1e7) radians are right to rounding."""
    length = 1 << (20 if DEVICE == "cuda" else 14)
    coefficients = complexed(normal(1, 1, 4)).to(torch.complex64)
    p = torch.complex(-1e-6 * torch.rand(1, 4).double(), 10 * normal(1, 4))
    found = vandermonde(coefficients.to(DEVICE), p.to(DEVICE), length, backend="triton")[..., -500:]
    position = torch.arange(length - 500, length, dtype=torch.float64)
    expected = 2 * (coefficients[..., None].to(torch.complex128) * torch.exp(p[..., None] * position)).sum(2).real
    agree(found, expected)


def test_a_resonance() -> None:
    half = math.pi * torch.arange(257, dtype=torch.float64) / 512
    frequencies, scales = 2 * torch.sin(half), torch.cos(half)
    near = [3, 70, 190]
    poles = torch.complex(torch.full((1, 3), -1e-5).double(), (frequencies / scales)[None, near])
    coefficients = complexed(normal(1, 1, 3)).to(torch.complex64)
    expected = cauchy(coefficients, poles, frequencies, scales, backend="reference")
    given = [tensor.to(DEVICE) for tensor in (coefficients, poles, frequencies, scales)]
    found = cauchy(*given, backend="triton").cpu()
    assert ((found - expected).abs() / expected.abs()).max() <= 1e-5


def test_double_precision_takes_the_plain_path() -> None:
    coefficients, p = complexed(normal(1, 2, 3)), modes(2, 3)
    expected = vandermonde(coefficients, p, 9, backend="reference")
    agree(vandermonde(coefficients.to(DEVICE), p.to(DEVICE), 9, backend="triton"), expected, 1e-12)
