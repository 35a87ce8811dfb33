"""The generators of kernels, vandermonde and cauchy, in plain PyTorch: the definition, gradients, length, memory."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import complexed, normal
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.ops import cauchy, vandermonde, vandermonde_moments


def modes(*shape: int, decay: float = 0.2) -> Tensor:
    """Complex numbers with small negative real parts."""
    return torch.complex(-decay * torch.rand(*shape, dtype=torch.float64), normal(*shape))


def nodes(size: int) -> tuple[Tensor, Tensor]:
    """Frequencies and scales of S4's generating function; the last of an even size is infinite."""
    half = math.pi * torch.arange(size // 2 + 1, dtype=torch.float64) / size
    return 2 * torch.sin(half), torch.cos(half)


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(1, 200))
def test_any_shape(channels: int, dim: int, state: int, length: int) -> None:
    coefficients, log_factors = complexed(normal(channels, dim, state)), modes(dim, state)
    signal = normal(channels, dim, length)
    for run in (
        lambda backend: vandermonde(coefficients, log_factors, length, backend=backend),
        lambda backend: vandermonde_moments(signal, log_factors, backend=backend),
        lambda backend: cauchy(coefficients, log_factors, *nodes(length), backend=backend),
    ):
        for backend in ("cpu", "torch"):
            assert relative(run(backend), run("reference")) <= 1e-11


def test_definitions() -> None:
    coefficients, log_factors = complexed(normal(2, 3, 4)), modes(3, 4)
    kernel = vandermonde(coefficients, log_factors, 6)
    moments = vandermonde_moments(kernel, log_factors)
    frequencies, scales = nodes(10)
    response = cauchy(coefficients, log_factors, frequencies, scales)
    plain = cauchy(coefficients, log_factors, frequencies)
    for c in range(2):
        for h in range(3):
            v, p = coefficients[c, h], log_factors[h]
            for l in range(6):
                assert torch.isclose(kernel[c, h, l], 2 * (v * torch.exp(p * l)).real.sum())
            powers = torch.exp(p[:, None] * torch.arange(6))
            assert torch.allclose(moments[c, h], powers @ kernel[c, h].to(powers.dtype))
            for j, (w, s) in enumerate(zip(frequencies, scales, strict=True)):
                for found, scale in ((response, s), (plain, torch.ones(()))):
                    expected = v / (1j * w - scale * p) + v.conj() / (1j * w - scale * p.conj())
                    assert torch.isclose(found[c, h, j], expected.sum())


CASES: dict[str, tuple[Any, tuple[Tensor, ...]]] = {
    "vandermonde": (lambda c, p, b: vandermonde(c, p, 21, backend=b), (complexed(normal(2, 3, 4)), modes(3, 4))),
    "moments": (lambda s, p, b: vandermonde_moments(s, p, backend=b), (normal(2, 3, 21), modes(3, 4))),
    "cauchy": (lambda c, p, b: cauchy(c, p, *nodes(8), backend=b), (complexed(normal(2, 3, 4)), modes(3, 4) - 0.1)),
}


every_backend = pytest.mark.parametrize("backend", ["cpu", "torch"])


@every_backend
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, inputs = CASES[name]
    for module in ("vandermonde", "cauchy"):
        monkeypatch.setattr(sys.modules[f"longscan.core.ops.{module}.chunked"], "_BUDGET", 64, raising=False)
    monkeypatch.setitem(sys.modules["longscan.core.ops.cauchy.chunked"]._BLOCK, "cpu", 8)  # many blocks
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(lambda *values: function(*values, backend), leaves)
    if backend == "cpu":
        return
    assert torch.autograd.gradgradcheck(lambda *values: function(*values, "reference"), leaves)
    (gradient,) = torch.autograd.grad(function(*leaves, backend).abs().square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="backend='reference'"):
        gradient.abs().sum().backward()


@pytest.mark.parametrize("name", CASES)
def test_registration_is_complete(name: str) -> None:
    coefficients, signal, p = complexed(normal(2, 3, 4)), normal(2, 3, 9), modes(3, 4)
    calls = {
        "vandermonde": (torch.ops.longscan.vandermonde.default, (coefficients, p, 9, "torch")),
        "moments": (torch.ops.longscan.vandermonde_moments.default, (signal, p, "torch")),
        "cauchy": (torch.ops.longscan.cauchy.default, (coefficients, p, *nodes(8), "torch")),
    }
    overload, args = calls[name]
    leaves = [a.requires_grad_() if isinstance(a, Tensor) and i < 2 else a for i, a in enumerate(args)]
    torch.library.opcheck(overload, tuple(leaves))


def test_a_million_positions_in_float32() -> None:
    """Phases of 1e7 radians are right to float32's rounding; gradients too."""
    length, last = 1 << 20, 1000
    coefficients = complexed(normal(1, 2, 8)).to(torch.complex64).requires_grad_()
    log_factors = torch.complex(-1e-6 * torch.rand(2, 8).double(), 10 * normal(2, 8)).requires_grad_()
    kernel = vandermonde(coefficients, log_factors, length)
    position = torch.arange(length - last, length, dtype=torch.float64)
    powers = torch.exp(log_factors[..., None] * position)
    expected = 2 * torch.einsum("chn,hnl->chl", coefficients.to(powers.dtype), powers).real
    assert kernel.dtype == torch.float32
    assert relative(kernel[..., -last:], expected) <= 2e-6
    weight = torch.randn(last)
    found = torch.autograd.grad((kernel[..., -last:] * weight).sum(), (coefficients, log_factors))
    wanted = torch.autograd.grad((expected * weight).sum(), (coefficients, log_factors))
    assert found[1].dtype == torch.complex128
    for gradient, reference in zip(found, wanted, strict=True):
        assert relative(gradient, reference) <= 1e-5


@every_backend
def test_a_resonance_in_float32(backend: str) -> None:
    """Poles next to a node: the difference has few digits, which float32 poles would not have."""
    frequencies, scales = nodes(1 << 12)
    poles = torch.complex(
        torch.full((1, 3), -1e-5).double(), frequencies[None, [3, 700, 1900]] / scales[[3, 700, 1900]]
    )
    coefficients = complexed(normal(1, 1, 3))
    expected = cauchy(coefficients, poles, frequencies, scales, backend="reference")
    found = cauchy(coefficients.to(torch.complex64), poles, frequencies, scales, backend=backend)
    assert found.dtype == torch.complex64
    assert ((found - expected).abs() / expected.abs()).max() <= 2e-5


SCRIPT = """
import resource, torch
from longscan.core.ops import cauchy, vandermonde, vandermonde_moments
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
torch.manual_seed(0)
dim, state, length = 2, 64, 1 << 20
p = torch.complex(-torch.rand(dim, state).double(), torch.randn(dim, state).double()).requires_grad_()
c = torch.randn(1, dim, state, dtype=torch.complex64, requires_grad=True)
vandermonde(c, p, 1000).sum().backward()
before = peak()
kernel = vandermonde(c, p, length)
kernel.square().sum().backward()
vandermonde_moments(kernel.detach(), p).abs().sum().backward()
w = torch.linspace(0, 2, length // 2).double()
cauchy(c, p, w).abs().sum().backward()
print(peak() - before)
"""


def test_memory_is_that_of_the_result() -> None:
    """The table of powers alone would be 1 GiB in complex64; kernels, gradients and FFT-sized copies are 8 MiB each."""
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 300


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda c, p: vandermonde(c.real, p, 3), "coefficients has dtype torch.float64, expected a complex dtype"),
        (lambda c, p: vandermonde(c[0], p, 3), r"expected 3 non-empty axes \(channels, dim, state\)"),
        (
            lambda c, p: vandermonde(c, p[:, :2], 3),
            r"log_factors has shape \(3, 2\), expected .* \(3, 4\)",
        ),
        (lambda c, p: vandermonde(c, p, 0), "length is 0, expected a positive integer"),
        (lambda c, p: vandermonde(c, p, 3, backend="numpy"), "backend='numpy' is unknown"),
        (lambda c, p: vandermonde_moments(c, p), "signal has dtype torch.complex128, expected a floating dtype"),
        (lambda c, p: vandermonde_moments(c.real, p[:2]), r"log_factors has shape \(2, 4\)"),
        (lambda c, p: cauchy(c, p.real, torch.ones(2)), "poles has dtype torch.float64, expected a complex dtype"),
        (lambda c, p: cauchy(c, p, torch.ones(2, 2)), r"expected 1 non-empty axes \(number,\)"),
        (lambda c, p: cauchy(c, p, torch.ones(2), torch.ones(3)), r"scales has shape \(3,\)"),
    ],
)
def test_bad_arguments(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(complexed(normal(2, 3, 4)), modes(3, 4))
