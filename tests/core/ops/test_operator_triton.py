"""The Triton kernels against the references: on a GPU where there is one, else through Triton's interpreter."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from operator_cases import Inputs, normal, selective_scan_inputs

from longscan.core.errors import UserError
from longscan.core.ops import selective_scan, short_conv

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
both_directions = pytest.mark.parametrize("reverse", [False, True])


def check(function: Callable[..., Any], inputs: Inputs, tolerance: float = 1e-5, **options: Any) -> None:
    """Compare values without gradients: float64 reference on the CPU, kernel in the dtype of the inputs."""
    expected = function(**{key: value.double() for key, value in inputs.items()}, **options, backend="reference")
    on_device = {key: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for key, value in options.items()}
    with torch.no_grad():
        found = function(**{key: value.to(DEVICE) for key, value in inputs.items()}, **on_device, backend="triton")
    for wanted, got in zip(expected, found, strict=True):
        assert got.shape == wanted.shape
        assert torch.isfinite(got).all()
        if wanted.numel():
            difference = (got.cpu().double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9)
            assert difference <= tolerance, f"relative difference {difference:.2e}"


@both_directions
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(
    ("B", "C"), [("varying", "varying"), ("grouped", "constant"), ("one_group", "grouped"), ("constant", "varying")]
)
def test_selective_scan(reverse: bool, packed: bool, everything: bool, B: str, C: str) -> None:
    length = 21
    cu_seqlens = torch.tensor([0, 1, 4, 16, length], dtype=torch.int32) if packed else None
    inputs = selective_scan_inputs(
        1 if packed else 2,
        length,
        B=B,
        C=C,
        everything=everything,
        sequences=4 if packed else None,
        dtype=torch.float32,
    )
    options = {"delta_softplus": True, "return_final_state": True, "cu_seqlens": cu_seqlens, "reverse": reverse}
    check(selective_scan, inputs, **options)


@both_directions
@pytest.mark.parametrize("length", [16, 17, 40])
def test_chunks_of_a_long_sequence_join(reverse: bool, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("longscan.core.ops.selective_scan.triton")
    monkeypatch.setattr(module, "_SHORTEST_CHUNK", 8)
    monkeypatch.setattr(module, "multiprocessors", lambda index: 64)
    inputs = selective_scan_inputs(1, length, dtype=torch.float32)
    assert module._chunks(length, 1, False, torch.device("cpu"))[1] >= 2
    check(selective_scan, inputs, delta_softplus=True, return_final_state=True, reverse=reverse)


@pytest.mark.parametrize(("dim", "state"), [(1, 1), (33, 16), (70, 3), (5, 40)])
def test_scan_of_any_width(dim: int, state: int) -> None:
    inputs = selective_scan_inputs(2, 5, dim, state, dtype=torch.float32)
    check(selective_scan, inputs, delta_softplus=True, return_final_state=True)


def test_scan_reads_inputs_where_they_lie_in_memory() -> None:
    inputs = selective_scan_inputs(2, 9, dtype=torch.float32)
    u, z = torch.cat([inputs["u"], inputs["z"]], dim=-1).chunk(2, dim=-1)
    assert not u.is_contiguous()
    check(selective_scan, {**inputs, "u": u, "z": z}, delta_softplus=True, return_final_state=True)


def test_scan_is_finite_and_right_at_large_and_tiny_steps() -> None:
    inputs = selective_scan_inputs(1, 12, dtype=torch.float32)
    inputs["delta"] = torch.linspace(-30, 60, 12)[None, :, None].expand(1, 12, 6).contiguous()
    inputs["u"] = inputs["u"] * 1e4
    inputs["A"] = inputs["A"] * 100
    check(selective_scan, inputs, delta_softplus=True, return_final_state=True)
    # A step of softplus(-12) = 6e-6 is a tiny number whose digits count.
    small = selective_scan_inputs(1, 3, everything=False, dtype=torch.float32)
    small["delta"] = torch.full((1, 3, 6), -12.0)
    check(selective_scan, small, delta_softplus=True, return_final_state=True)


@both_directions
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(("width", "length"), [(4, 37), (4, 2), (3, 1), (2, 33), (1, 5), (8, 40)])
def test_short_conv(reverse: bool, packed: bool, everything: bool, width: int, length: int) -> None:
    cu_seqlens = torch.tensor(sorted({0, min(1, length), min(4, length), length})) if packed else None
    sequences = 2 if cu_seqlens is None else cu_seqlens.numel() - 1
    inputs = {
        "x": normal(1 if packed else 2, length, 5, dtype=torch.float32),
        "weight": normal(5, width, dtype=torch.float32),
    }
    if everything:
        inputs["bias"] = normal(5, dtype=torch.float32)
        inputs["initial_state"] = normal(sequences, width - 1, 5, dtype=torch.float32)
    check(
        short_conv,
        inputs,
        activation="silu" if everything else None,
        return_final_state=True,
        cu_seqlens=cu_seqlens,
        reverse=reverse,
    )


def test_gradients_are_those_of_the_plain_path() -> None:
    inputs = selective_scan_inputs(1, 11, dtype=torch.float32)

    def gradients(backend: str) -> list[torch.Tensor]:
        given = {key: value.clone().to(DEVICE).requires_grad_() for key, value in inputs.items()}
        selective_scan(**given, delta_softplus=True, backend=backend).sum().backward()
        return [value.grad for value in given.values() if value.grad is not None]

    for plain, kernel in zip(gradients("torch"), gradients("triton"), strict=True):
        torch.testing.assert_close(kernel, plain)


@pytest.mark.skipif(DEVICE == "cuda", reason="needs a machine without a GPU")
def test_the_kernels_need_a_gpu_unless_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="backend='triton' was given tensors on cpu"):
        short_conv(torch.zeros(1, 3, 2), torch.zeros(2, 4), backend="triton")
