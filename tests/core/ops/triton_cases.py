"""What the tests of the Triton kernels share: they run on a GPU where there is one, else through the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from operator_cases import Inputs, assert_agree, run
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: The largest error of values and of gradients, relative to the largest entry, at the sizes of real inputs.
TOLERANCE = {
    torch.float32: (1e-5, 1e-4),
    torch.complex64: (1e-5, 1e-4),
    torch.bfloat16: (1e-2, 2e-2),
    torch.float16: (1e-2, 2e-2),
}


@contextmanager
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New memory holds NaN until it is written."""

    def poison(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            tensor = function(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() or tensor.is_complex() else tensor

        return call

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", poison(torch.empty))
        patch.setattr(torch, "empty_like", poison(torch.empty_like))
        yield


def double(inputs: Inputs) -> Inputs:
    return {k: v.to(torch.complex128 if v.is_complex() else torch.float64) for k, v in inputs.items()}


def run_kernels(function: Callable[..., Any], inputs: Inputs, **options: Any) -> dict[str, Tensor]:
    """Outputs and gradients as those of ``run`` in operator_cases, from the kernels and brought to the CPU."""
    leaves = {name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in inputs.items()}
    options = {key: value.to(DEVICE) if isinstance(value, Tensor) else value for key, value in options.items()}
    outputs = function(**leaves, **options, backend="triton")
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    gradients = []
    for output in outputs:
        gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        if output.is_complex():
            gradient = torch.complex(gradient, torch.randn(output.shape, generator=generator, dtype=torch.float64))
        gradients.append(gradient.to(DEVICE, output.dtype))
    found = torch.autograd.grad(outputs, list(leaves.values()), gradients)
    named = {f"output {index}": output.detach().cpu() for index, output in enumerate(outputs)}
    return named | {f"gradient of {name}": gradient.cpu() for name, gradient in zip(leaves, found, strict=True)}


def check(function: Callable[..., Any], inputs: Inputs, tolerance: float = 1e-5, **options: Any) -> None:
    """Values and gradients against the reference in double precision on the CPU."""
    expected = run(function, double(inputs), "reference", return_final_state=True, **options)
    assert_agree(run_kernels(function, inputs, return_final_state=True, **options), expected, tolerance)
