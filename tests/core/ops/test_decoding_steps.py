"""The steps of decoding against float64 and the operators they continue: on a GPU, else through the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_cases import distance, normal, selective_scan_inputs
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.ops import selective_scan, selective_state_update, short_conv, short_conv_update

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: The interpreter cuts off what rounding to nearest would round.
BFLOAT16 = 2**-7


def moved(inputs: dict[str, Any], device: str = DEVICE, dtype: torch.dtype | None = None) -> dict[str, Any]:
    return {key: value.to(device, dtype) if isinstance(value, Tensor) else value for key, value in inputs.items()}


def step_inputs(
    batch: int, dim: int, state: int, B: str, C: str, everything: bool, dtype: torch.dtype
) -> dict[str, Tensor]:
    given = selective_scan_inputs(batch, 1, dim, state, B=B, C=C, everything=everything, dtype=torch.float32)
    given.pop("initial_state", None)
    inputs = {key: value[:, 0] if value.ndim > 2 else value for key, value in given.items()}
    short = {key: value.to(dtype) for key, value in inputs.items() if key in ("u", "delta", "B", "C", "z")}
    return inputs | short | {"state": normal(batch, dim, state, dtype=torch.float32)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize(
    ("batch", "dim", "state", "B", "C"),
    [
        (1, 1, 1, "varying", "varying"),
        (5, 3, 16, "varying", "constant"),
        (2, 96, 16, "grouped", "varying"),
        (3, 1000, 5, "one_group", "grouped"),
        (4, 6, 40, "constant", "one_group"),
    ],
)
def test_state_update(batch: int, dim: int, state: int, B: str, C: str, everything: bool, dtype: torch.dtype) -> None:
    inputs = step_inputs(batch, dim, state, B, C, everything, dtype)
    wide, given = moved(inputs, "cpu", torch.float64), moved(inputs)
    expected = selective_state_update(**wide, delta_softplus=everything, backend="reference")
    found = selective_state_update(**given, delta_softplus=everything, backend="triton")
    assert found.dtype == dtype
    assert given["state"].dtype == torch.float32
    assert distance(found.cpu().double(), expected) < (1e-5 if dtype == torch.float32 else BFLOAT16)
    assert distance(given["state"].cpu().double(), wide["state"]) < 1e-5


def test_state_update_is_the_scan_token_by_token() -> None:
    inputs = selective_scan_inputs(2, 6, 8, 5, C="grouped", dtype=torch.float32)
    expected, final = selective_scan(
        **moved(inputs, "cpu", torch.float64), delta_softplus=True, return_final_state=True, backend="reference"
    )
    given = moved(inputs)
    state = given.pop("initial_state").clone()
    fixed = {key: given.pop(key) for key in ("A", "D", "delta_bias")}
    for t in range(6):
        token = {key: value[:, t] for key, value in given.items()}  # not contiguous
        y = selective_state_update(state, **token, **fixed, delta_softplus=True, backend="triton")
        assert distance(y.cpu().double(), expected[:, t]) < 1e-5
    assert distance(state.cpu().double(), final) < 1e-5


def test_state_update_of_large_numbers_and_odd_layouts() -> None:
    inputs = step_inputs(3, 33, 16, "varying", "varying", True, torch.float32)
    for key in ("u", "B", "C"):
        inputs[key] = inputs[key] * 1e4
    inputs["delta"] = torch.linspace(-60, 60, 33).expand(3, 33)
    wide, given = moved(inputs, "cpu", torch.float64), moved(inputs)
    given["state"] = given["state"].permute(0, 2, 1).contiguous().permute(0, 2, 1)  # channels adjacent in memory
    expected = selective_state_update(**wide, delta_softplus=True, backend="reference")
    found = selective_state_update(**given, delta_softplus=True, backend="triton")
    assert found.isfinite().all()
    assert distance(found.cpu().double(), expected) < 1e-5
    assert distance(given["state"].cpu().double(), wide["state"]) < 1e-5


def test_state_update_repeats_its_bits() -> None:
    inputs = moved(step_inputs(2, 70, 16, "varying", "grouped", True, torch.bfloat16))
    results = []
    for _ in range(2):
        given = inputs | {"state": inputs["state"].clone()}
        results.append((selective_state_update(**given, backend="triton"), given["state"]))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("batch", "dim", "width"), [(1, 1, 4), (3, 96, 4), (2, 1000, 2), (5, 3, 1), (2, 130, 7)])
@pytest.mark.parametrize("everything", [True, False])
def test_conv_update_is_the_convolution_token_by_token(batch: int, dim: int, width: int, everything: bool) -> None:
    x, weight = normal(batch, 5, dim).float(), normal(dim, width).float()
    bias = normal(dim).float() if everything else None
    activation = "silu" if everything else None
    start = normal(batch, width - 1, dim).float()
    arguments = [x.double(), weight.double(), None if bias is None else bias.double(), activation]
    expected, final = short_conv(*arguments, initial_state=start.double(), return_final_state=True, backend="reference")
    state, bias = start.clone().to(DEVICE), None if bias is None else bias.to(DEVICE)
    for t in range(5):
        y = short_conv_update(state, x[:, t].to(DEVICE), weight.to(DEVICE), bias, activation, backend="triton")
        assert distance(y.cpu().double(), expected[:, t]) < 1e-5
    assert torch.equal(state.cpu().double(), final)


def test_conv_update_in_bfloat16() -> None:
    x, weight, bias = normal(3, 20).bfloat16(), normal(20, 4).float(), normal(20).float()
    state = normal(3, 3, 20).bfloat16()
    wide = state.double()
    expected = short_conv_update(wide, x.double(), weight.double(), bias.double(), "silu", backend="reference")
    given = state.to(DEVICE)
    found = short_conv_update(given, x.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE), "silu", backend="triton")
    assert found.dtype == torch.bfloat16
    assert distance(found.cpu().double(), expected) < BFLOAT16
    assert torch.equal(given.cpu().double(), wide)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": torch.zeros(2, 4, 5)}, r"state has shape \(2, 4, 5\), expected \(batch, width - 1, dim\)"),
        ({"weight": torch.zeros(4, 4)}, r"weight has shape \(4, 4\), expected \(dim, width\)"),
        ({"bias": torch.zeros(1)}, r"bias has shape \(1,\), expected \(dim,\)"),
        ({"activation": "relu"}, "activation='relu' is unknown"),
        ({"x": torch.zeros(2, 1, 5)}, r"x has shape \(2, 1, 5\), expected 2 non-empty axes"),
    ],
)
def test_conv_update_mistakes(change: dict[str, Any], message: str) -> None:
    good = {"state": torch.zeros(2, 3, 5), "x": torch.zeros(2, 5), "weight": torch.zeros(5, 4)}
    with pytest.raises(UserError, match=message):
        short_conv_update(**(good | change))


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conv_update_takes_weights_of_another_dtype(backend: str, weights: torch.dtype, dtype: torch.dtype) -> None:
    inputs = [normal(*shape, dtype=torch.float32) for shape in ((2, 3, 5), (2, 5), (5, 4), (5,))]
    kinds = (dtype, dtype, weights, weights)
    short = [value.to(DEVICE, kind) for value, kind in zip(inputs, kinds, strict=True)]
    window = torch.cat([short[0], short[1][:, None]], 1).double()
    expected = (window * short[2].double().T).sum(1) + short[3].double()
    y = short_conv_update(*short, backend=backend)
    assert y.dtype == short[0].dtype == dtype
    assert distance(y, expected) < (BFLOAT16 if dtype == torch.bfloat16 else 1e-6)
    assert torch.equal(short[0].double(), window[:, 1:])


def test_steps_differentiate_where_gradients_are_needed() -> None:
    """A step outside of ``no_grad`` is plain PyTorch, whatever the backend."""
    inputs = moved(step_inputs(2, 6, 4, "varying", "varying", True, torch.float32))
    leaf = inputs["u"].requires_grad_()
    selective_state_update(**inputs, delta_softplus=True, backend="triton").sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0
    weight = torch.ones(6, 4, device=DEVICE, requires_grad=True)
    state = torch.ones(2, 3, 6, device=DEVICE)
    short_conv_update(state, torch.ones(2, 6, device=DEVICE), weight, backend="triton").sum().backward()
    assert weight.grad is not None


def test_registration_of_the_steps() -> None:
    from longscan.core.ops.selective_state_update import registration as scan
    from longscan.core.ops.short_conv_update import registration as conv

    inputs = moved(step_inputs(2, 6, 4, "varying", "grouped", True, torch.float32))
    names = ("state", "u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    utilities = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(scan._update, (*(inputs[name] for name in names), True), test_utils=utilities)
    call = (torch.zeros(2, 3, 6), torch.ones(2, 6), torch.ones(6, 4), None, True)
    call = tuple(value.to(DEVICE) if isinstance(value, Tensor) else value for value in call)
    torch.library.opcheck(conv._update, call, test_utils=utilities)
