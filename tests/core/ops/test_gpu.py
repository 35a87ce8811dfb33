"""The operators on an NVIDIA GPU against float64 references on the CPU: values and all gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from longscan.core.ops import linear_scan, long_conv, selective_scan, selective_state_update, short_conv

pytestmark = pytest.mark.gpu

BATCH, LENGTH, DIM, STATE = 2, 203, 48, 16
PACKED = [0, 1, 64, 65, 203]


def scan_inputs(batch: int, state_rows: int) -> dict[str, Tensor]:
    """Random arguments of a Mamba layer's scan, float64."""
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    return {
        "u": make(batch, LENGTH, DIM),
        "delta": make(batch, LENGTH, DIM),
        "A": -torch.rand(DIM, STATE, dtype=torch.float64) - 0.1,
        "B": make(batch, LENGTH, 2, STATE),
        "C": make(batch, LENGTH, STATE),
        "D": make(DIM),
        "z": make(batch, LENGTH, DIM),
        "delta_bias": make(DIM),
        "initial_state": make(state_rows, DIM, STATE),
    }


def compare(
    name: str, function: Callable[..., Any], inputs: dict[str, Tensor], *, reference: bool = True, **options: Any
) -> None:
    """Run in float32 on the GPU and in float64 with the reference on the CPU; differences are of the maximum."""

    def run(device: str, dtype: torch.dtype, **more: Any) -> list[Tensor]:
        given = {
            key: value.detach().to(device, dtype if not value.is_complex() else dtype.to_complex()).requires_grad_()
            for key, value in inputs.items()
        }
        settings = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in options.items()}
        outputs = function(**given, **settings, **more)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        generator = torch.Generator().manual_seed(1)
        loss = torch.zeros((), device=device, dtype=dtype)
        for output in outputs:
            real = torch.view_as_real(output) if output.is_complex() else output
            weight = torch.randn(real.shape, generator=generator, dtype=torch.float64).to(device, dtype)
            loss = loss + (real.to(dtype) * weight).sum()
        loss.backward()
        return [*outputs, *(value.grad for value in given.values())]

    expected = run("cpu", torch.float64, **({"backend": "reference"} if reference else {}))
    found = run("cuda", torch.float32)
    worst = max(
        ((f.detach().cpu().to(e.dtype) - e.detach()).abs().max() / e.detach().abs().max().clamp(min=1e-30)).item()
        for f, e in zip(found, expected, strict=True)
    )
    print(f"{name}: {worst:.2e} of the maximum")
    assert worst < 1e-4


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_selective_scan(reverse: bool, packed: bool) -> None:
    """All options at once."""
    torch.manual_seed(0)
    inputs = scan_inputs(1 if packed else BATCH, len(PACKED) - 1 if packed else BATCH)
    options = {"cu_seqlens": torch.tensor(PACKED)} if packed else {}
    compare(
        f"selective_scan reverse={reverse} packed={packed}",
        selective_scan,
        inputs,
        delta_softplus=True,
        return_final_state=True,
        reverse=reverse,
        **options,
    )


@pytest.mark.parametrize("complex_valued", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_linear_scan(complex_valued: bool, reverse: bool) -> None:
    """Real and complex decays."""
    torch.manual_seed(0)
    dtype = torch.complex128 if complex_valued else torch.float64
    a = torch.randn(BATCH, LENGTH, DIM, dtype=dtype)
    inputs = {
        "a": a / a.abs().clamp(min=1),
        "x": torch.randn(BATCH, LENGTH, DIM, dtype=dtype),
        "initial_state": torch.randn(BATCH, DIM, dtype=dtype),
    }
    name = f"linear_scan complex={complex_valued} reverse={reverse}"
    compare(name, linear_scan, inputs, return_final_state=True, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_short_conv(reverse: bool) -> None:
    """With bias, SiLU and a state."""
    torch.manual_seed(0)
    inputs = {
        "x": torch.randn(BATCH, LENGTH, DIM, dtype=torch.float64),
        "weight": torch.randn(DIM, 4, dtype=torch.float64),
        "bias": torch.randn(DIM, dtype=torch.float64),
        "initial_state": torch.randn(BATCH, 3, DIM, dtype=torch.float64),
    }
    name = f"short_conv reverse={reverse}"
    compare(name, short_conv, inputs, activation="silu", return_final_state=True, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_long_conv(reverse: bool) -> None:
    """With gates and skip."""
    torch.manual_seed(0)
    inputs = {
        "u": torch.randn(BATCH, LENGTH, DIM, dtype=torch.float64),
        "kernel": torch.randn(DIM, LENGTH, dtype=torch.float64),
        "skip": torch.randn(DIM, dtype=torch.float64),
        "gate_in": torch.randn(BATCH, LENGTH, DIM, dtype=torch.float64),
        "gate_out": torch.randn(BATCH, LENGTH, DIM, dtype=torch.float64),
    }
    compare(f"long_conv reverse={reverse}", long_conv, inputs, reverse=reverse)


def test_selective_state_update() -> None:
    """One step, in place."""
    torch.manual_seed(0)
    state = torch.randn(BATCH, DIM, STATE, device="cuda")
    u, delta, z = (torch.randn(BATCH, DIM, device="cuda") for _ in range(3))
    A = -torch.rand(DIM, STATE, device="cuda")
    B, C = torch.randn(BATCH, STATE, device="cuda"), torch.randn(BATCH, STATE, device="cuda")
    expected, after = selective_scan(
        *(x.double().unsqueeze(1) for x in (u, delta)),
        A.double(),
        B.double().unsqueeze(1),
        C.double().unsqueeze(1),
        z=z.double().unsqueeze(1),
        delta_softplus=True,
        initial_state=state.double(),
        return_final_state=True,
        backend="reference",
    )
    y = selective_state_update(state, u, delta, A, B, C, z=z, delta_softplus=True)
    assert (y - expected.squeeze(1)).abs().max() < 1e-4
    assert (state - after).abs().max() < 1e-4


def test_mamba_ssm_backend() -> None:
    """The optional backend computes the same, both ways round."""
    pytest.importorskip("mamba_ssm")
    torch.manual_seed(0)
    for reverse in (False, True):
        inputs = scan_inputs(BATCH, BATCH)
        del inputs["initial_state"]
        inputs["B"] = inputs["B"][:, :, 0]
        expected = selective_scan(**inputs, delta_softplus=True, reverse=reverse, backend="reference")
        given = {key: value.float().cuda() for key, value in inputs.items()}
        found = selective_scan(**given, delta_softplus=True, reverse=reverse, backend="mamba_ssm")
        worst = ((found.cpu() - expected).abs().max() / expected.abs().max()).item()
        print(f"mamba_ssm reverse={reverse}: {worst:.2e}")
        assert worst < 1e-4
