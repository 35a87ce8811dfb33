"""Random arguments for the operators, and the comparison of backends: helpers of the tests beside this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Inputs = dict[str, Tensor]

BACKENDS = ("cpu", "torch")


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def complexed(tensor: Tensor) -> Tensor:
    return torch.complex(tensor, torch.randn_like(tensor))


def selective_scan_inputs(
    batch: int = 2,
    length: int = 37,
    dim: int = 6,
    state: int = 5,
    *,
    B: str = "varying",
    C: str = "varying",
    everything: bool = True,
    sequences: int | None = None,
    complex_A: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Inputs:
    """Inputs for the selective scan; B and C are "varying", "grouped" (2 groups), "one_group" or "constant"."""

    def matrix(kind: str) -> Tensor:
        kind, _, number = kind.partition(" ")
        shapes = {
            "varying": (batch, length, state),
            "grouped": (batch, length, 2, state),
            "one_group": (batch, length, 1, state),
            "constant": (dim, state),
        }
        tensor = normal(*shapes[kind], dtype=dtype)
        return complexed(tensor) if number == "complex" else tensor

    A = -2 * torch.rand(dim, state, dtype=dtype)
    if complex_A:
        A = complexed(A)
    inputs = {
        "u": normal(batch, length, dim, dtype=dtype),
        "delta": normal(batch, length, dim, dtype=dtype),
        "A": A,
        "B": matrix(B),
        "C": matrix(C),
    }
    if everything:
        initial = normal(sequences or batch, dim, state, dtype=dtype)
        inputs |= {
            "D": normal(dim, dtype=dtype),
            "z": normal(batch, length, dim, dtype=dtype),
            "delta_bias": normal(dim, dtype=dtype),
            "initial_state": complexed(initial) if complex_A else initial,
        }
    else:
        # Without the softplus a negative step would make the recurrence grow.
        inputs["delta"] = inputs["delta"].abs()
    return inputs


def run(function: Callable[..., Any], inputs: Inputs, backend: str, **options: Any) -> dict[str, Tensor]:
    """Outputs and the gradients of all inputs for fixed random gradients of the outputs."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in inputs.items()}
    outputs = function(**leaves, **options, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    gradients = []
    for output in outputs:
        gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        if output.is_complex():
            gradient = torch.complex(gradient, torch.randn(output.shape, generator=generator, dtype=torch.float64))
        gradients.append(gradient.to(output.device, output.dtype))
    found = torch.autograd.grad(outputs, list(leaves.values()), gradients)
    named = {f"output {index}": output.detach() for index, output in enumerate(outputs)}
    return named | {f"gradient of {name}": gradient for name, gradient in zip(leaves, found, strict=True)}


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest expected entry."""
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    if expected.numel() == 0:
        return 0.0
    if expected.dtype not in (torch.float64, torch.complex128):
        found, expected = found.to(torch.complex128), expected.to(torch.complex128)
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def assert_agree(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.isfinite().all(), name
        error = distance(tensor, expected[name])
        assert error < tolerance, f"{name}: {error:.2e}"


def packed_rows(starts: np.ndarray) -> Tensor:
    """cu_seqlens of a batch whose rows are laid end to end, from flags (batch, length) at the first tokens."""
    flags = starts.copy()
    flags[:, 0] = True
    return torch.tensor([*np.flatnonzero(flags.ravel()), flags.size])
