"""The CPU and the plain PyTorch backends against the references, over options, shapes and precisions."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import (
    BACKENDS,
    Inputs,
    assert_agree,
    complexed,
    distance,
    normal,
    run,
    selective_scan_inputs,
)

from longscan.core.ops import linear_scan, long_conv, selective_scan, selective_state_update, short_conv

every_backend = pytest.mark.parametrize("backend", BACKENDS)
both_directions = pytest.mark.parametrize("reverse", [False, True])


@every_backend
@both_directions
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("B", "C", "complex_A"),
    [
        ("varying", "varying", False),
        ("grouped", "grouped", False),
        ("constant", "constant", False),
        ("constant", "varying", False),
        ("grouped", "constant", False),
        ("one_group", "grouped", False),
        ("grouped", "varying", False),
        ("varying", "varying", True),
        ("varying complex", "grouped complex", True),
        ("constant complex", "varying", True),
    ],
)
def test_selective_scan(backend: str, reverse: bool, packed: bool, B: str, C: str, complex_A: bool) -> None:
    length = 70  # more than a chunk of the compiled kernels
    cu_seqlens = torch.tensor([0, 1, 4, 64, length], dtype=torch.int32) if packed else None
    for everything in (True, False):
        inputs = selective_scan_inputs(
            1 if packed else 2,
            length,
            B=B,
            C=C,
            complex_A=complex_A,
            everything=everything,
            sequences=4 if packed else None,
        )
        options = {
            "delta_softplus": everything,
            "return_final_state": True,
            "cu_seqlens": cu_seqlens,
            "reverse": reverse,
        }
        expected = run(selective_scan, inputs, "reference", **options)
        assert_agree(run(selective_scan, inputs, backend, **options), expected, 1e-12)


@st.composite
def packings(draw: Any, max_sequences: int = 6, max_length: int = 70) -> list[int]:
    lengths = draw(st.lists(st.integers(1, max_length), min_size=1, max_size=max_sequences))
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return offsets


@every_backend
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    offsets=packings(), dim=st.integers(1, 35), state=st.integers(1, 9), reverse=st.booleans(), seed=st.integers(0, 99)
)
def test_selective_scan_of_any_packing(
    backend: str, offsets: list[int], dim: int, state: int, reverse: bool, seed: int
) -> None:
    """A packed row equals its sequences one by one, in float32, with outputs, states and all gradients."""
    torch.manual_seed(seed)
    sequences = len(offsets) - 1
    inputs = selective_scan_inputs(1, offsets[-1], dim, state, sequences=sequences, dtype=torch.float32)
    options = {"delta_softplus": True, "return_final_state": True, "reverse": reverse}
    cu_seqlens = torch.tensor(offsets)
    found = run(selective_scan, inputs, backend, cu_seqlens=cu_seqlens, **options)
    exact = {name: tensor.double() for name, tensor in inputs.items()}
    assert_agree(found, run(selective_scan, exact, "reference", cu_seqlens=cu_seqlens, **options), 1e-4)
    begin, end = offsets[-2:]
    alone = {
        name: tensor[:, begin:end] if tensor.shape[:2] == (1, offsets[-1]) else tensor
        for name, tensor in inputs.items()
    }
    alone["initial_state"] = inputs["initial_state"][-1:]
    y, final = selective_scan(**alone, delta_softplus=True, return_final_state=True, reverse=reverse, backend=backend)
    assert distance(y, found["output 0"][:, begin:end]) < 1e-5
    assert distance(final, found["output 1"][-1:]) < 1e-5


def linear_scan_inputs(
    batch: int, length: int, dim: int, sequences: int | None, complex_a: bool, complex_x: bool, dtype: torch.dtype
) -> Inputs:
    inputs = {
        "a": torch.rand(batch, length, dim, dtype=dtype),
        "x": normal(batch, length, dim, dtype=dtype),
        "initial_state": normal(sequences or batch, dim, dtype=dtype),
    }
    for name, wanted in (("a", complex_a), ("x", complex_x), ("initial_state", complex_a or complex_x)):
        if wanted:
            inputs[name] = complexed(inputs[name]) * 0.6
    return inputs


@every_backend
@both_directions
@pytest.mark.parametrize("complex_a", [False, True])
@pytest.mark.parametrize("complex_x", [False, True])
@pytest.mark.parametrize(("batch", "length", "cu_seqlens"), [(3, 1, None), (2, 41, None), (1, 41, [0, 1, 3, 30, 41])])
def test_linear_scan(
    backend: str, reverse: bool, complex_a: bool, complex_x: bool, batch: int, length: int, cu_seqlens: list[int] | None
) -> None:
    options: dict[str, Any] = {"return_final_state": True, "reverse": reverse}
    if cu_seqlens is not None:
        options["cu_seqlens"] = torch.tensor(cu_seqlens)
    sequences = None if cu_seqlens is None else len(cu_seqlens) - 1
    inputs = linear_scan_inputs(batch, length, 70, sequences, complex_a, complex_x, torch.float64)
    expected = run(linear_scan, inputs, "reference", **options)
    assert_agree(run(linear_scan, inputs, backend, **options), expected, 1e-12)
    del inputs["initial_state"]
    expected = run(linear_scan, inputs, "reference", **options)
    assert_agree(run(linear_scan, inputs, backend, **options), expected, 1e-12)


@every_backend
@settings(max_examples=25, deadline=None, derandomize=True)
@given(offsets=packings(), dim=st.integers(1, 70), reverse=st.booleans(), complex_a=st.booleans())
def test_linear_scan_of_any_packing(backend: str, offsets: list[int], dim: int, reverse: bool, complex_a: bool) -> None:
    inputs = linear_scan_inputs(1, offsets[-1], dim, len(offsets) - 1, complex_a, complex_a, torch.float32)
    options = {"return_final_state": True, "reverse": reverse, "cu_seqlens": torch.tensor(offsets)}
    exact = {
        name: tensor.to(torch.complex128 if tensor.is_complex() else torch.float64) for name, tensor in inputs.items()
    }
    found = run(linear_scan, inputs, backend, **options)
    assert_agree(found, run(linear_scan, exact, "reference", **options), 1e-5)


@every_backend
@both_directions
@pytest.mark.parametrize("width", [1, 2, 4, 7])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("batch", "length", "cu_seqlens"), [(3, 1, None), (2, 9, None), (1, 30, [0, 1, 3, 20, 30])])
def test_short_conv(
    backend: str,
    reverse: bool,
    width: int,
    activation: str | None,
    batch: int,
    length: int,
    cu_seqlens: list[int] | None,
) -> None:
    options: dict[str, Any] = {"return_final_state": True, "reverse": reverse, "activation": activation}
    if cu_seqlens is not None:
        options["cu_seqlens"] = torch.tensor(cu_seqlens)
    sequences = batch if cu_seqlens is None else len(cu_seqlens) - 1
    dim = 70
    inputs = {
        "x": normal(batch, length, dim),
        "weight": normal(dim, width),
        "bias": normal(dim),
        "initial_state": normal(sequences, width - 1, dim),
    }
    expected = run(short_conv, inputs, "reference", **options)
    assert_agree(run(short_conv, inputs, backend, **options), expected, 1e-12)
    del inputs["bias"], inputs["initial_state"]
    expected = run(short_conv, inputs, "reference", **options)
    assert_agree(run(short_conv, inputs, backend, **options), expected, 1e-12)


@every_backend
@settings(max_examples=25, deadline=None, derandomize=True)
@given(offsets=packings(max_length=9), dim=st.integers(1, 70), width=st.integers(1, 5), reverse=st.booleans())
def test_short_conv_of_any_packing(backend: str, offsets: list[int], dim: int, width: int, reverse: bool) -> None:
    dtype = torch.float32
    inputs = {
        "x": normal(1, offsets[-1], dim, dtype=dtype),
        "weight": normal(dim, width, dtype=dtype),
        "bias": normal(dim, dtype=dtype),
        "initial_state": normal(len(offsets) - 1, width - 1, dim, dtype=dtype),
    }
    options = {
        "activation": "silu",
        "return_final_state": True,
        "reverse": reverse,
        "cu_seqlens": torch.tensor(offsets),
    }
    exact = {name: tensor.double() for name, tensor in inputs.items()}
    assert_agree(run(short_conv, inputs, backend, **options), run(short_conv, exact, "reference", **options), 1e-5)


@every_backend
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 40),
    taps=st.integers(1, 90),
    causal=st.booleans(),
    reverse=st.booleans(),
    everything=st.booleans(),
)
def test_long_conv(backend: str, length: int, taps: int, causal: bool, reverse: bool, everything: bool) -> None:
    inputs = {"u": normal(2, length, 3), "kernel": normal(3, taps)}
    if everything:
        inputs |= {"skip": normal(3), "gate_in": normal(2, length, 3), "gate_out": normal(2, length, 3)}
    options = {"causal": causal, "reverse": reverse}
    expected = run(long_conv, inputs, "reference", **options)
    assert_agree(run(long_conv, inputs, backend, **options), expected, 1e-11)


def test_long_conv_means_what_its_formula_says() -> None:
    """Kernel index kernel_length // 2 of a centred kernel is lag 0; reverse correlates."""
    u, kernel = normal(1, 6, 1), normal(1, 4)
    for causal, zero in ((True, 0), (False, 2)):
        for reverse in (False, True):
            expected = torch.zeros(6, dtype=torch.float64)
            for t in range(6):
                for index in range(4):
                    source = t + (index - zero) if reverse else t - (index - zero)
                    if 0 <= source < 6:
                        expected[t] += kernel[0, index] * u[0, source, 0]
            found = long_conv(u, kernel, causal=causal, reverse=reverse)[0, :, 0]
            assert distance(found, expected) < 1e-13


def _module(operator: str, name: str) -> Any:
    return importlib.import_module(f"longscan.core.ops.{operator}.{name}")


@both_directions
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("complex_A", [False, True])
def test_blocks_of_the_torch_backend(
    monkeypatch: pytest.MonkeyPatch, reverse: bool, packed: bool, complex_A: bool
) -> None:
    """Cut into blocks of several lengths, among them 1, the result is the same."""
    length = 43
    sequences = 5 if packed else None
    cu_seqlens = torch.tensor([0, 1, 7, 8, 30, length]) if packed else None
    options = {"return_final_state": True, "reverse": reverse, "cu_seqlens": cu_seqlens}
    batch = 1 if packed else 2
    scan = selective_scan_inputs(batch, length, 4, 3, sequences=sequences, complex_A=complex_A)
    recurrence = linear_scan_inputs(batch, length, 5, sequences, complex_A, complex_A, torch.float64)
    scan_expected = run(selective_scan, scan, "reference", delta_softplus=True, **options)
    recurrence_expected = run(linear_scan, recurrence, "reference", **options)
    for block in (1, 7, 20):
        per_token = batch * 4 * 3 * (2 if complex_A else 1)
        monkeypatch.setattr(_module("selective_scan", "chunked"), "_BUDGET", block * per_token)
        monkeypatch.setattr(_module("linear_scan", "chunked"), "_BUDGET", block * batch * 5)
        assert_agree(run(selective_scan, scan, "torch", delta_softplus=True, **options), scan_expected, 1e-12)
        assert_agree(run(linear_scan, recurrence, "torch", **options), recurrence_expected, 1e-12)


def test_blocks_of_channels_of_the_long_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {
        "u": normal(2, 20, 7),
        "kernel": normal(7, 20),
        "skip": normal(7),
        "gate_in": normal(2, 20, 7),
        "gate_out": normal(2, 20, 7),
    }
    expected = run(long_conv, inputs, "cpu")
    monkeypatch.setattr(_module("long_conv", "chunked"), "_BUDGET", 2 * 40 * 3)
    assert_agree(run(long_conv, inputs, "cpu"), expected, 1e-14)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shorter_dtypes(backend: str, dtype: torch.dtype) -> None:
    """Against float64 on the same rounded inputs: what remains is the rounding of outputs and gradients."""
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    scan = selective_scan_inputs(2, 150, 20, 8)
    for name in ("u", "delta", "z", "B", "C"):
        scan[name] = scan[name].to(dtype)
    for name in ("A", "D", "delta_bias", "initial_state"):
        scan[name] = scan[name].float()
    recurrence = linear_scan_inputs(2, 150, 20, None, False, False, torch.float64)
    recurrence = {name: tensor.to(dtype) for name, tensor in recurrence.items()}
    conv = {"x": normal(2, 50, 20), "weight": normal(20, 4), "bias": normal(20)}
    conv = {name: tensor.to(dtype) for name, tensor in conv.items()}
    long = {"u": normal(2, 50, 20).to(dtype), "kernel": normal(20, 50, dtype=torch.float32)}
    for function, inputs, options in (
        (selective_scan, scan, {"delta_softplus": True, "return_final_state": True}),
        (linear_scan, recurrence, {"return_final_state": True}),
        (short_conv, conv, {"activation": "silu"}),
        (long_conv, long, {}),
    ):
        found = run(function, inputs, backend, **options)
        exact = {name: tensor.double() for name, tensor in inputs.items()}
        assert_agree(found, run(function, exact, "reference", **options), tolerance)
        assert found["output 0"].dtype == dtype
        for name, tensor in inputs.items():
            assert found[f"gradient of {name}"].dtype == tensor.dtype


@every_backend
def test_large_inputs_stay_finite(backend: str) -> None:
    """Steps of thousands make the decay vanish: exactly, and in the gradients too."""
    inputs = selective_scan_inputs(1, 100, 18, 4, dtype=torch.float32)
    inputs["delta"] = inputs["delta"] * 1e3
    inputs["A"] = inputs["A"] * 50
    found = run(selective_scan, inputs, backend, delta_softplus=True, return_final_state=True)
    exact = {name: tensor.double() for name, tensor in inputs.items()}
    expected = run(selective_scan, exact, "reference", delta_softplus=True, return_final_state=True)
    assert_agree(found, expected, 1e-4)
    # 3e38 is near the largest float32: sums of two overflow, what is below does not.
    big = torch.full((1, 40, 3), 1e37)
    y = linear_scan(torch.full_like(big, 0.5), big, backend=backend)
    assert y.isfinite().all()
    assert distance(y[:, -1], torch.full((1, 3), 2e37)) < 1e-5


@every_backend
def test_nan_spreads_forward_only(backend: str) -> None:
    inputs = selective_scan_inputs(1, 70, 3, 2, dtype=torch.float32)
    inputs["u"][0, 40, 1] = torch.nan
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert y[0, :40].isfinite().all()
    assert y[0, 40:, 1].isnan().all()
    assert y[0, :, [0, 2]].isfinite().all()


def _operators(backend: str) -> list[tuple[Any, Inputs, dict[str, Any]]]:
    """Every recurrent operator, with inputs (2, 23, ...) and a state."""
    return [
        (selective_scan, selective_scan_inputs(2, 23), {"delta_softplus": True}),
        (linear_scan, linear_scan_inputs(2, 23, 6, None, False, False, torch.float64), {}),
        (
            short_conv,
            {"x": normal(2, 23, 6), "weight": normal(6, 4), "initial_state": normal(2, 3, 6)},
            {"activation": "silu"},
        ),
    ]


def _cut(inputs: Inputs, begin: int, end: int) -> Inputs:
    return {
        name: tensor[:, begin:end] if tensor.ndim > 2 and tensor.shape[1] == 23 else tensor
        for name, tensor in inputs.items()
    }


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@both_directions
def test_pieces_with_carried_state_equal_one_pass(backend: str, reverse: bool) -> None:
    """Also where a piece is shorter than the state of the short convolution."""
    pieces = [(0, 1), (1, 3), (3, 10), (10, 12), (12, 23)]
    for function, inputs, options in _operators(backend):
        options = options | {"return_final_state": True, "reverse": reverse, "backend": backend}
        whole, final = function(**inputs, **options)
        state = inputs["initial_state"]
        outputs = {}
        for piece in reversed(pieces) if reverse else pieces:
            outputs[piece], state = function(**(_cut(inputs, *piece) | {"initial_state": state}), **options)
        assert distance(torch.cat([outputs[piece] for piece in pieces], dim=1), whole) < 1e-13
        assert distance(state, final) < 1e-13


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_reverse_equals_flipping_before_and_after(backend: str) -> None:
    for function, inputs, options in _operators(backend):
        flipped = {
            name: tensor.flip(1) if tensor.ndim > 2 and tensor.shape[1] == 23 else tensor
            for name, tensor in inputs.items()
        }
        expected, expected_final = function(**flipped, **options, return_final_state=True, backend=backend)
        found, final = function(**inputs, **options, return_final_state=True, reverse=True, backend=backend)
        assert distance(found, expected.flip(1)) < 1e-13
        assert distance(final, expected_final) < 1e-13


@every_backend
def test_inputs_that_are_not_contiguous(backend: str) -> None:
    """Views of a wider projection, transposed or expanded tensors give what their copies give."""
    for function, inputs, options in _operators(backend):
        views = {}
        for name, tensor in inputs.items():
            wide = torch.cat([tensor, tensor], dim=-1)
            views[name] = wide[..., : tensor.shape[-1]] if tensor.ndim > 1 else wide[::2].copy_(tensor)
        expected = run(function, inputs, backend, **options)
        assert distance(function(**views, **options, backend=backend), expected["output 0"]) < 1e-14
    y = linear_scan(torch.full((1, 1, 3), 0.5).expand(2, 9, 3), torch.ones(3, 9, 2).permute(2, 1, 0), backend=backend)
    assert distance(y[:, -1], torch.full((2, 3), 2 - 0.5**8)) < 1e-6


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_do_not_depend_on_threads_or_runs(threads: int) -> None:
    before = torch.get_num_threads()
    inputs = selective_scan_inputs(3, 130, 50, 4, dtype=torch.float32)
    options = {"delta_softplus": True, "return_final_state": True}
    try:
        torch.set_num_threads(1)
        expected = run(selective_scan, inputs, "cpu", **options)
        torch.set_num_threads(threads)
        for _ in range(3):
            for name, tensor in run(selective_scan, inputs, "cpu", **options).items():
                if name == "gradient of delta_bias":  # a sum of PyTorch's own, split by threads
                    assert distance(tensor, expected[name]) < 1e-5
                else:
                    assert torch.equal(tensor, expected[name]), name
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("matrices", ["varying", "grouped", "constant"])
@pytest.mark.parametrize("complex_A", [False, True])
def test_steps_equal_the_scan(matrices: str, complex_A: bool) -> None:
    inputs = selective_scan_inputs(3, 9, B=matrices, C=matrices, complex_A=complex_A)
    expected, final = selective_scan(**inputs, delta_softplus=True, return_final_state=True, backend="reference")
    state = inputs.pop("initial_state").clone()
    for t in range(9):
        step = {name: tensor[:, t] if tensor.ndim > 2 else tensor for name, tensor in inputs.items()}
        assert distance(selective_state_update(state, **step, delta_softplus=True), expected[:, t]) < 1e-13
    assert distance(state, final) < 1e-13


def test_a_step_in_bfloat16_keeps_the_state_in_float32() -> None:
    inputs = selective_scan_inputs(2, 1, dtype=torch.bfloat16)
    state = inputs.pop("initial_state").float()
    expected = selective_scan(**inputs, initial_state=state.clone(), return_final_state=True)[1]
    step = {name: tensor[:, 0] if tensor.ndim > 2 else tensor for name, tensor in inputs.items()}
    y = selective_state_update(state, **step)
    assert y.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert distance(state, expected) < 1e-6
