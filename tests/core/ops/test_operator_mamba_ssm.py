"""The adapter to mamba-ssm, with a stand-in for its function that has its layout and its gaps."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from operator_cases import distance, run, selective_scan_inputs
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.ops import selective_scan


def stand_in(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> tuple[Tensor, Tensor]:
    """u, delta, z (batch, dim, length); B, C (batch, groups, state, length), or twice that length for complex A."""
    assert return_last_state
    assert all(t is None or t.is_contiguous() for t in (u, delta, B, C, z))
    assert all(t is None or t.dtype == torch.float32 for t in (D, delta_bias))

    def tokens(matrix: Tensor) -> Tensor:
        if matrix.ndim == 2:
            return matrix
        if A.is_complex():
            matrix = torch.view_as_complex(matrix.float().unflatten(-1, (-1, 2)).contiguous())
        return matrix.permute(0, 3, 1, 2)

    y, state = selective_scan(
        *(u.mT, delta.mT, A, tokens(B), tokens(C), D, None if z is None else z.mT, delta_bias, delta_softplus),
        return_final_state=True,
        backend="reference",
    )
    return y.mT, state


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = stand_in  # type: ignore[attr-defined]
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("complex_A", [False, True])
@pytest.mark.parametrize(("B", "C"), [("varying", "grouped"), ("grouped", "grouped"), ("constant", "varying")])
def test_layout_and_gradients(reverse: bool, complex_A: bool, B: str, C: str) -> None:
    inputs = selective_scan_inputs(2, 9, B=B, C=C, complex_A=complex_A, dtype=torch.float32)
    del inputs["initial_state"]
    found = run(selective_scan, inputs, "mamba_ssm", delta_softplus=True, reverse=reverse)
    expected = run(selective_scan, inputs, "reference", delta_softplus=True, reverse=reverse)
    for name, tensor in expected.items():
        assert distance(found[name], tensor) < 1e-5, name


@pytest.mark.usefixtures("package")
def test_the_final_state_has_no_gradient() -> None:
    inputs = selective_scan_inputs(2, 9, dtype=torch.float32)
    del inputs["initial_state"]
    leaf = inputs["u"].requires_grad_()
    y, state = selective_scan(**inputs, return_final_state=True, backend="mamba_ssm")
    expected = selective_scan(**inputs, return_final_state=True, backend="reference")[1]
    assert distance(state, expected) < 1e-6
    y.sum().backward(retain_graph=True)
    assert leaf.grad is not None
    with pytest.raises(UserError, match="return_final_state with backend='mamba_ssm' has no gradient"):
        state.sum().backward()


@pytest.mark.skipif("mamba_ssm" in sys.modules, reason="mamba-ssm is installed")
def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    inputs = selective_scan_inputs(2, 9, dtype=torch.float32)
    del inputs["initial_state"]
    with pytest.raises(UserError, match="needs the package mamba-ssm"):
        selective_scan(**inputs, backend="mamba_ssm")


@pytest.mark.parametrize("option", ["initial_state", "cu_seqlens"])
def test_options_that_the_kernel_lacks(option: str) -> None:
    inputs = selective_scan_inputs(1, 9, dtype=torch.float32)
    if option == "cu_seqlens":
        inputs["cu_seqlens"] = torch.tensor([0, 9])
        del inputs["initial_state"]
    with pytest.raises(UserError, match=f"{option} is not possible with backend='mamba_ssm'"):
        selective_scan(**inputs, backend="mamba_ssm")
