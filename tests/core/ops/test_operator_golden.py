"""Every backend against fixtures in float64: outputs and all gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from operator_cases import distance, packed_rows
from torch import Tensor

from longscan.core.ops import linear_scan, long_conv, selective_scan, short_conv

GOLDEN = Path(__file__).parents[2] / "golden"
TOLERANCE = 1e-9

every_backend = pytest.mark.parametrize("backend", ["reference", "cpu", "torch"])


def load(path: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / path) as archive:
        return dict(archive)


def tokens(array: np.ndarray) -> Tensor:
    """(batch, channels, length) or (batch, groups, state, length) with the length second."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def compare(name: str, pairs: dict[str, tuple[Tensor, Any]]) -> None:
    worst = max(distance(found.detach(), torch.as_tensor(expected)) for found, expected in pairs.values())
    print(f"{name}: largest relative error {worst:.1e}")
    for label, (found, expected) in pairs.items():
        assert distance(found.detach(), torch.as_tensor(expected)) < TOLERANCE, label


@every_backend
def test_selective_scan(backend: str) -> None:
    data = load("core/ref64/selective_scan_a.npz")
    along = {"u", "delta", "B", "C", "z"}
    names = {"h0": "initial_state"}
    keys = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "h0")
    inputs = {
        names.get(key, key): (tokens(data[key]) if key in along else torch.from_numpy(data[key])).requires_grad_()
        for key in keys
    }
    out, final = selective_scan(**inputs, delta_softplus=True, return_final_state=True, backend=backend)
    gradients = torch.autograd.grad(
        [out, final], list(inputs.values()), [tokens(data["dout"]), torch.from_numpy(data["dht"])]
    )
    pairs: dict[str, tuple[Tensor, Any]] = {"out": (out, tokens(data["out"])), "final": (final, data["ht"])}
    for key, gradient in zip(keys, gradients, strict=True):
        expected = data[f"d_{key}"]
        pairs[key] = (gradient, tokens(expected) if key in along else expected)
    compare(f"selective_scan {backend}", pairs)


@every_backend
@pytest.mark.parametrize("case", ["full", "groups", "const_bc", "plain", "len1"])
def test_selective_scan_of_the_published_package(backend: str, case: str) -> None:
    def part(name: str) -> dict[str, np.ndarray]:
        loaded = load(f"genomics/selective-scan-a/{name}.npz")
        return {key.split("/")[1]: value for key, value in loaded.items() if key.startswith(f"{case}/")}

    data, expected = part("inputs"), part("outputs")

    def laid_out(key: str, array: np.ndarray) -> Tensor:
        if key in ("A", "D", "delta_bias", "last_state") or (key in "BC" and array.ndim == 2):
            return torch.from_numpy(array)
        return tokens(array)

    inputs = {key: laid_out(key, array).requires_grad_() for key, array in data.items() if not key.startswith("grad")}
    out, final = selective_scan(**inputs, delta_softplus=case != "plain", return_final_state=True, backend=backend)
    gradients = torch.autograd.grad(
        [out, final],
        list(inputs.values()),
        [tokens(data["grad_out"]), torch.from_numpy(data["grad_last_state"])],
    )
    pairs: dict[str, tuple[Tensor, Any]] = {
        "out": (out, tokens(expected["out"])),
        "final": (final, expected["last_state"]),
    }
    for key, gradient in zip(inputs, gradients, strict=True):
        pairs[key] = (gradient, laid_out(key, expected[f"grad_{key}"]))
    compare(f"selective_scan {case} {backend}", pairs)


@every_backend
@pytest.mark.parametrize("name", ["linear_recurrence_real_a", "linear_recurrence_complex_a"])
def test_linear_scan(backend: str, name: str) -> None:
    data = {key: torch.from_numpy(value) for key, value in load(f"core/ref64/{name}.npz").items()}
    inputs = [data[key].requires_grad_() for key in ("a", "x", "h0")]
    y, final = linear_scan(*inputs[:2], initial_state=inputs[2], return_final_state=True, backend=backend)
    gradients = torch.autograd.grad([y, final], inputs, [data["dy"], data["dht"]])
    pairs: dict[str, tuple[Tensor, Any]] = {"y": (y, data["y"]), "final": (final, data["ht"])}
    pairs |= {key: (gradient, data[f"d_{key}"]) for key, gradient in zip(("a", "x", "h0"), gradients, strict=True)}
    compare(f"{name} {backend}", pairs)


@every_backend
@pytest.mark.parametrize("name", ["linear_recurrence_real_a_varlen", "linear_recurrence_complex_a_varlen"])
def test_linear_scan_of_packed_rows(backend: str, name: str) -> None:
    data = {key: torch.from_numpy(value) for key, value in load(f"core/ref64/{name}.npz").items()}
    cu_seqlens = packed_rows(data["starts"].numpy())
    batch, length, dim = data["x"].shape
    # Only the sequence that begins a row enters with the row's state, unless the fixture drops it there.
    kept = ~data["starts"][:, 0]
    first = torch.searchsorted(cu_seqlens, torch.arange(batch) * length)
    initial = torch.zeros(cu_seqlens.numel() - 1, dim, dtype=data["x"].dtype)
    initial[first[kept]] = data["h0"][kept]
    last = torch.searchsorted(cu_seqlens, (torch.arange(batch) + 1) * length) - 1
    grad_final = torch.zeros_like(initial)
    grad_final[last] = data["dht"]
    inputs = [data["a"].reshape(1, -1, dim), data["x"].reshape(1, -1, dim), initial]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    y, final = linear_scan(
        *inputs[:2], initial_state=inputs[2], return_final_state=True, cu_seqlens=cu_seqlens, backend=backend
    )
    grad_a, grad_x, grad_initial = torch.autograd.grad([y, final], inputs, [data["dy"].reshape(y.shape), grad_final])
    compare(
        f"{name} {backend}",
        {
            "y": (y.reshape(data["y"].shape), data["y"]),
            "final": (final[last], data["ht"]),
            "a": (grad_a.reshape(data["d_a"].shape), data["d_a"]),
            "x": (grad_x.reshape(data["d_x"].shape), data["d_x"]),
            "h0": (grad_initial[first] * kept[:, None], data["d_h0"]),
        },
    )


@every_backend
def test_long_conv(backend: str) -> None:
    data = load("core/ref64/longconv_causal_a.npz")
    inputs = [tokens(data["u"]), torch.from_numpy(data["k"]), torch.from_numpy(data["Dskip"])]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    y = long_conv(*inputs, backend=backend)
    grad_u, grad_k, grad_skip = torch.autograd.grad(y, inputs, tokens(data["dy"]))
    compare(
        f"long_conv {backend}",
        {
            "y": (y, tokens(data["y"])),
            "u": (grad_u, tokens(data["d_u"])),
            "kernel": (grad_k, data["d_k"]),
            "skip": (grad_skip, data["d_Dskip"]),
        },
    )


@every_backend
@pytest.mark.parametrize("name", ["causal_conv1d_silu_a", "causal_conv1d_silu_a_varlen"])
def test_short_conv(backend: str, name: str) -> None:
    data = load(f"core/ref64/{name}.npz")
    cu_seqlens = packed_rows(data["starts"])
    batch, dim, length = data["x"].shape
    first = torch.searchsorted(cu_seqlens, torch.arange(batch) * length)
    last = torch.searchsorted(cu_seqlens, (torch.arange(batch) + 1) * length) - 1
    initial = torch.zeros(cu_seqlens.numel() - 1, data["w"].shape[1] - 1, dim, dtype=torch.float64)
    initial[first] = tokens(data["state"])
    inputs = [
        tokens(data["x"]).reshape(1, -1, dim),
        torch.from_numpy(data["w"]),
        torch.from_numpy(data["bias"]),
        initial,
    ]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    y, final = short_conv(
        *inputs[:3],
        "silu",
        initial_state=inputs[3],
        return_final_state=True,
        cu_seqlens=cu_seqlens,
        backend=backend,
    )
    grad_x, grad_w, grad_bias, grad_state = torch.autograd.grad(y, inputs, tokens(data["dy"]).reshape(y.shape))
    shape = (batch, length, dim)
    pairs: dict[str, tuple[Tensor, Any]] = {
        "y": (y.reshape(shape), tokens(data["y"])),
        "x": (grad_x.reshape(shape), tokens(data["d_x"])),
        "weight": (grad_w, data["d_w"]),
        "bias": (grad_bias, data["d_bias"]),
        "state": (grad_state[first], tokens(data["d_state"])),
    }
    # The fixture's final state reads across a document that starts within the last three tokens of a row.
    whole = torch.tensor([int(cu_seqlens[s + 1] - cu_seqlens[s]) >= initial.shape[1] for s in last])
    pairs["final"] = (final[last][whole], tokens(data["state_out"])[whole])
    compare(f"{name} {backend}", pairs)
