"""The selective scan from both ends at once: the kernels in one launch, and the other backends."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from operator_cases import Inputs, assert_agree, run, selective_scan_inputs
from torch import Tensor
from triton_cases import DEVICE, TOLERANCE, double, poisoned_memory, run_kernels

from longscan.core.errors import UserError
from longscan.core.ops import ScanDirection, selective_scan, selective_scan_bidirectional

PLAN = importlib.import_module("longscan.core.ops.selective_scan.triton_plan")
TRITON = importlib.import_module("longscan.core.ops.selective_scan.triton")


def pair(batch: int, length: int, dim: int = 6, state: int = 5, **options: Any) -> Inputs:
    """Inputs of both directions; those of the reverse one end in _2."""
    forward, reverse = (selective_scan_inputs(batch, length, dim, state, **options) for _ in range(2))
    for inputs in (forward, reverse):
        inputs.pop("initial_state", None)
    reverse.pop("z", None)
    return forward | {f"{name}_2": tensor for name, tensor in reverse.items()}


def both(**given: Any) -> Tensor:
    """The operator on such inputs."""
    z = given.pop("z", None)
    options = {name: given.pop(name) for name in ("cu_seqlens", "backend") if name in given}
    forward = ScanDirection(**{name: tensor for name, tensor in given.items() if not name.endswith("_2")})
    reverse = ScanDirection(**{name[:-2]: tensor for name, tensor in given.items() if name.endswith("_2")})
    return selective_scan_bidirectional(forward, reverse, z, True, **options)


def check(inputs: Inputs, tolerance: float = 1e-5, **options: Any) -> None:
    expected = run(both, double(inputs), "reference", **options)
    assert_agree(run_kernels(both, inputs, **options), expected, tolerance)


def test_it_is_the_sum_of_two_scans() -> None:
    inputs = pair(2, 9)
    options: dict[str, Any] = {"delta_softplus": True, "backend": "reference"}
    forward = options | {name: tensor for name, tensor in inputs.items() if not name.endswith("_2")}
    reverse = options | {name[:-2]: tensor for name, tensor in inputs.items() if name.endswith("_2")}
    left, right = selective_scan(**forward), selective_scan(**reverse, z=inputs["z"], reverse=True)
    assert isinstance(left, Tensor)
    assert isinstance(right, Tensor)
    for backend in ("reference", "cpu", "torch"):
        torch.testing.assert_close(both(**inputs, backend=backend), left + right)


@pytest.mark.parametrize(
    ("packed", "everything", "B", "C"),
    [
        (False, True, "varying", "varying"),
        (True, True, "varying", "varying"),
        (True, False, "grouped", "constant"),
        (False, True, "constant", "varying"),
        (True, True, "one_group", "grouped"),
        (False, False, "one_group", "grouped"),
    ],
)
def test_values_and_gradients(packed: bool, everything: bool, B: str, C: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cu_seqlens = torch.tensor([0, 1, 2, 16, 21], dtype=torch.int32) if packed else None
    inputs = pair(1 if packed else 2, 21, B=B, C=C, everything=everything, dtype=torch.float32)
    with poisoned_memory(monkeypatch):
        check(inputs, cu_seqlens=cu_seqlens)


@pytest.mark.parametrize(
    ("B", "length", "everything"),
    [("varying", 33, True), ("grouped", 50, False), ("constant", 40, True), ("varying", 64, True)],
)
def test_chunks_of_a_long_sequence_join(B: str, length: int, everything: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both directions have common chunks, of which the last is short: where the reverse one begins."""
    monkeypatch.setattr(PLAN, "_chunks", lambda length, *rest: (32, -(-length // 32)))
    with poisoned_memory(monkeypatch):
        check(pair(1, length, 4, 33, B=B, everything=everything, dtype=torch.float32))


@pytest.mark.parametrize(("length", "dim", "state"), [(1, 1, 1), (2, 33, 16), (7, 70, 3), (19, 3, 70)])
def test_sizes(length: int, dim: int, state: int) -> None:
    check(pair(2, length, dim, state, dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    inputs = pair(2, 19, dtype=torch.float32)
    half = {k: v.to(dtype) if k.removesuffix("_2") in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    expected = run(both, double(half), "reference")
    # The result of the first direction is rounded before the other is added; the interpreter cuts off.
    assert_agree(run_kernels(both, half), expected, 1.5 * TOLERANCE[dtype][1])


def test_one_launch_unless_the_directions_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = TRITON.run_forward

    def count(scans: Any, save: bool) -> Any:
        seen.append(len(scans))
        return original(scans, save)

    monkeypatch.setattr(TRITON, "run_forward", count)
    inputs = pair(1, 5, dtype=torch.float32)
    run_kernels(both, inputs)
    assert seen == [2]
    seen.clear()
    del inputs["D_2"]
    check(inputs)
    assert seen == [1, 1]


def test_both_directions_may_share_tensors() -> None:
    """As in Vim's first version: everything but A."""
    inputs = {name: t.to(DEVICE) for name, t in pair(2, 11, dtype=torch.float32).items()}
    shared = {name: inputs[name].requires_grad_() for name in ("u", "delta", "B", "C", "D", "delta_bias", "z")}
    for backend in ("torch", "triton"):
        one = {name: shared[name] for name in shared if name != "z"}
        y = selective_scan_bidirectional(
            ScanDirection(A=inputs["A"], **one),
            ScanDirection(A=inputs["A_2"], **one),
            shared["z"],
            True,
            backend=backend,
        )
        found = [y.detach(), *torch.autograd.grad(y.square().sum(), list(shared.values()))]
        if backend == "torch":
            expected = found
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=2e-4, rtol=2e-4)


def test_compiles_whole() -> None:
    inputs = {name: t.to(DEVICE).requires_grad_() for name, t in pair(2, 7, dtype=torch.float32).items()}

    def call(**given: Tensor) -> Tensor:
        return both(**given, backend="triton")

    found = []
    for function in (call, torch.compile(call, fullgraph=True, backend="aot_eager")):
        y = function(**inputs)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), list(inputs.values()))])
    for eager, compiled in zip(*found, strict=True):
        assert torch.equal(eager, compiled)


def test_errors_name_the_direction() -> None:
    inputs = pair(1, 4)
    with pytest.raises(UserError, match=r"bidirectional, reverse: B has shape \(1, 3, 5\)"):
        both(**{**inputs, "B_2": inputs["B"][:, :3]})
    other = pair(1, 5)
    longer = {name: other[name] if name.endswith("_2") else inputs[name] for name in other if name != "z"}
    with pytest.raises(UserError, match=r"reverse direction is torch\.float64 \(1, 5, 6\)"):
        both(**longer)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "length", "dim"), [(3, 197, 384), (1, 6084, 96)])
def test_real_shapes(batch: int, length: int, dim: int, dtype: torch.dtype) -> None:
    inputs = pair(batch, length, dim, 16, dtype=torch.float32)
    inputs = {k: v.to(dtype) if k.removesuffix("_2") in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    expected = run(both, double(inputs), "torch")
    found = run_kernels(both, inputs)
    for name, value in expected.items():
        error = (found[name].double() - value).norm() / value.norm()
        assert error < TOLERANCE[dtype][int(name.startswith("gradient"))], f"{name}: {error:.1e}"
    again = run_kernels(both, inputs)
    assert all(torch.equal(found[name], again[name]) for name in found)
