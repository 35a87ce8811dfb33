"""The operators inside PyTorch's machinery: derivatives, compilers, export, checkpointing, autocast, imports."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from operator_cases import BACKENDS, Inputs, complexed, distance, normal, run, selective_scan_inputs
from torch import Tensor, nn

from longscan.core.ops import linear_scan, long_conv, selective_scan, selective_state_update, short_conv

every_backend = pytest.mark.parametrize("backend", BACKENDS)
CU_SEQLENS = torch.tensor([0, 1, 5])


def cases() -> dict[str, tuple[Any, Inputs, dict[str, Any]]]:
    """Tiny inputs in float64 for every operator, with and without options."""
    torch.manual_seed(0)
    packed = {"cu_seqlens": CU_SEQLENS, "return_final_state": True}
    return {
        "selective_scan": (
            selective_scan,
            selective_scan_inputs(2, 3, 2, 2),
            {"delta_softplus": True, "return_final_state": True},
        ),
        "selective_scan packed reverse": (
            selective_scan,
            selective_scan_inputs(1, 5, 2, 2, B="constant", C="grouped", sequences=2),
            packed | {"reverse": True},
        ),
        "selective_scan complex": (
            selective_scan,
            selective_scan_inputs(1, 3, 2, 2, B="varying complex", complex_A=True),
            {"delta_softplus": True, "return_final_state": True},
        ),
        "linear_scan": (
            linear_scan,
            {"a": torch.rand(2, 4, 3).double(), "x": normal(2, 4, 3), "initial_state": normal(2, 3)},
            {"return_final_state": True},
        ),
        "linear_scan complex packed": (
            linear_scan,
            {"a": complexed(normal(1, 5, 2)), "x": complexed(normal(1, 5, 2))},
            packed | {"reverse": True},
        ),
        "short_conv": (
            short_conv,
            {"x": normal(2, 4, 3), "weight": normal(3, 3), "bias": normal(3), "initial_state": normal(2, 2, 3)},
            {"activation": "silu", "return_final_state": True},
        ),
        "short_conv without states": (
            short_conv,
            {"x": normal(2, 4, 3), "weight": normal(3, 2), "bias": normal(3)},
            {"activation": "silu", "reverse": True},
        ),
        "short_conv packed reverse": (
            short_conv,
            {"x": normal(1, 5, 3), "weight": normal(3, 3)},
            packed | {"reverse": True},
        ),
        "long_conv": (
            long_conv,
            {
                "u": normal(2, 4, 2),
                "kernel": normal(2, 4),
                "skip": normal(2),
                "gate_in": normal(2, 4, 2),
                "gate_out": normal(2, 4, 2),
            },
            {},
        ),
        "long_conv centred": (long_conv, {"u": normal(1, 5, 2), "kernel": normal(2, 3)}, {"causal": False}),
    }


every_case = pytest.mark.parametrize("case", list(cases()))


@every_case
def test_references_differentiate_twice(case: str) -> None:
    function, inputs, options = cases()[case]
    leaves = [tensor.requires_grad_() for tensor in inputs.values()]

    def call(*tensors: Tensor) -> Any:
        return function(**dict(zip(inputs, tensors, strict=True)), **options, backend="reference")

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@every_case
@every_backend
def test_gradients_against_finite_differences(case: str, backend: str) -> None:
    function, inputs, options = cases()[case]
    leaves = [tensor.requires_grad_() for tensor in inputs.values()]

    def call(*tensors: Tensor) -> Any:
        return function(**dict(zip(inputs, tensors, strict=True)), **options, backend=backend)

    assert torch.autograd.gradcheck(call, leaves)


@every_backend
def test_second_derivatives_name_the_reference(backend: str) -> None:
    x = normal(1, 3, 2).requires_grad_()
    y = linear_scan(torch.full_like(x, 0.5), x, backend=backend)
    (gradient,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="backend='reference'"):
        gradient.sum().backward()


@every_backend
def test_partial_gradients(backend: str) -> None:
    """Only some inputs need a gradient; only the final state has one; nothing needs one."""
    inputs = selective_scan_inputs(2, 40)
    expected = run(selective_scan, inputs, "reference")
    leaf = inputs["A"].clone().requires_grad_()
    y = selective_scan(**(inputs | {"A": leaf}), backend=backend)
    generator = torch.Generator().manual_seed(1)
    y.backward(torch.randn(y.shape, generator=generator, dtype=torch.float64))
    assert distance(leaf.grad, expected["gradient of A"]) < 1e-12

    state = inputs["initial_state"].clone().requires_grad_()
    _, final = selective_scan(**(inputs | {"initial_state": state}), return_final_state=True, backend=backend)
    final.sum().backward()
    twin = inputs["initial_state"].clone().requires_grad_()
    _, final = selective_scan(**(inputs | {"initial_state": twin}), return_final_state=True, backend="reference")
    final.sum().backward()
    assert distance(state.grad, twin.grad) < 1e-12
    assert not selective_scan(**inputs, backend=backend).requires_grad


@every_case
@every_backend
def test_registration_is_complete(case: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.library.opcheck: schema, autograd registration, fake tensors, ahead-of-time dispatch."""
    function, inputs, options = cases()[case]
    name = case.split()[0]
    registration = sys.modules[f"longscan.core.ops.{name}.registration"]
    attribute = "_scan" if name.endswith("scan") else "_conv"
    overload = getattr(registration, attribute)
    calls: list[tuple[Any, ...]] = []

    def record(*arguments: Any) -> Any:
        calls.append(arguments)
        return overload(*arguments)

    monkeypatch.setattr(registration, attribute, record)
    function(**{key: tensor.requires_grad_() for key, tensor in inputs.items()}, **options, backend=backend)
    assert len(calls) == 1
    torch.library.opcheck(overload, calls[0])


class Layer(nn.Module):
    """All operators one after the other."""

    def __init__(self, backend: str | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backend = backend
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.A = nn.Parameter(-torch.rand(6, 3))
        self.kernel = nn.Parameter(torch.randn(6, 8))
        self.delta = nn.Linear(6, 6)
        self.matrices = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = short_conv(x, self.weight, activation="silu", backend=self.backend)
        B, C = self.matrices(x).chunk(2, dim=-1)
        x = selective_scan(x, self.delta(x), self.A, B, C, delta_softplus=True, backend=self.backend)
        x = linear_scan(torch.sigmoid(self.delta(x)), x, reverse=True, backend=self.backend)
        return long_conv(x, self.kernel, backend=self.backend)


def loss_and_gradients(layer: Any, x: Tensor) -> list[Tensor]:
    loss = layer(x).square().mean()
    return [loss.detach(), *torch.autograd.grad(loss, list(layer.parameters()))]


@every_backend
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiles_into_one_graph(backend: str, compiler: str) -> None:
    torch._dynamo.reset()
    layer, x = Layer(backend), torch.randn(2, 9, 6)
    expected = loss_and_gradients(layer, x)
    compiled = torch.compile(layer, fullgraph=True, backend=compiler)
    loss = compiled(x).square().mean()
    found = [loss.detach(), *torch.autograd.grad(loss, list(layer.parameters()))]
    for one, other in zip(found, expected, strict=True):
        assert distance(one, other) < 1e-6


def test_compiles_by_default_with_packing_and_state() -> None:
    torch._dynamo.reset()
    inputs = selective_scan_inputs(1, 5, sequences=2, dtype=torch.float32)

    def call(cu_seqlens: Tensor) -> Any:
        return selective_scan(**inputs, cu_seqlens=cu_seqlens, return_final_state=True)

    found = torch.compile(call, fullgraph=True, backend="aot_eager")(CU_SEQLENS)
    for one, other in zip(found, call(CU_SEQLENS), strict=True):
        assert distance(one, other) < 1e-6
    with pytest.raises(ValueError, match="cu_seqlens"):
        torch.compile(call, fullgraph=True, backend="aot_eager")(torch.tensor([0, 3, 4]))


def test_compiles_where_some_sizes_are_symbols() -> None:
    """A size that the compiler has seen change in one argument equals the number that it still is in another."""
    torch._dynamo.reset()

    def call(a: Tensor, x: Tensor, state: Tensor, weight: Tensor) -> Tensor:
        y = linear_scan(a, x, initial_state=state)
        assert isinstance(y, Tensor)
        return short_conv(y, weight, activation="silu")  # type: ignore[return-value]

    inputs = torch.rand(2, 9, 6), torch.randn(2, 9, 6), torch.randn(2, 6), torch.randn(6, 4)
    for symbolic in inputs[2:]:
        torch._dynamo.maybe_mark_dynamic(symbolic, (0, 1))
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert distance(compiled(*inputs), call(*inputs)) < 1e-6


def test_a_step_compiles() -> None:
    torch._dynamo.reset()
    inputs = selective_scan_inputs(2, 1, dtype=torch.float32)
    state = inputs.pop("initial_state")
    step = {name: tensor[:, 0] if tensor.ndim > 2 else tensor for name, tensor in inputs.items()}
    compiled_state = state.clone()
    found = torch.compile(selective_state_update, fullgraph=True, backend="aot_eager")(compiled_state, **step)
    assert distance(found, selective_state_update(state, **step)) < 1e-6
    assert distance(compiled_state, state) < 1e-6


@every_backend
def test_exports(backend: str) -> None:
    """With a batch and a length that stay free."""
    layer, x = Layer(backend), torch.randn(2, 9, 6)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": free})
    assert distance(program.module()(x), layer(x)) < 1e-6
    longer = torch.randn(3, 5000, 6)
    assert distance(program.module()(longer), layer(longer)) < 1e-6


@every_backend
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing(backend: str, use_reentrant: bool) -> None:
    layer, x = Layer(backend), torch.randn(2, 9, 6, requires_grad=True)
    layer(x).square().mean().backward()
    expected, x.grad = x.grad, None
    weights = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=use_reentrant).square().mean().backward()
    assert distance(x.grad, expected) < 1e-6
    for parameter, weight in zip(layer.parameters(), weights, strict=True):
        assert distance(parameter.grad, weight) < 1e-6


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_autocast(backend: str) -> None:
    """Under autocast the projections give bfloat16 and parameters stay float32; the operators keep their precision."""
    layer, x = Layer(backend), torch.randn(2, 9, 6)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        y.float().square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
        assert distance(y, exact) < 3e-2
        # On the same float32 inputs autocast changes nothing.
        inputs = selective_scan_inputs(2, 9, dtype=torch.float32)
        inside = run(selective_scan, inputs, backend, delta_softplus=True)
    outside = run(selective_scan, inputs, backend, delta_softplus=True)
    for name, tensor in outside.items():
        assert torch.equal(inside[name], tensor), name


def test_inference_mode() -> None:
    layer, x = Layer(), torch.randn(2, 9, 6)
    with torch.inference_mode():
        y = layer(x)
    assert distance(y.clone(), layer(x)) < 1e-6


def test_the_step_that_is_not_saved_costs_no_memory() -> None:
    """Without gradients the selective scan keeps no states between chunks."""
    registration = sys.modules["longscan.core.ops.selective_scan.registration"]
    inputs = selective_scan_inputs(1, 130)
    arguments = [inputs.get(name) for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")]
    for save, chunks in ((False, 0), (True, 3)):
        assert registration._scan(*arguments, None, False, False, "cpu", save)[2].shape[0] == chunks


def test_importing_the_operators_loads_neither_numba_nor_the_compiler() -> None:
    program = (
        "import sys, longscan.core.ops;"
        "print([name for name in ('numba', 'triton', 'torch._dynamo', 'mamba_ssm') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_compiled_chunk_is_what_the_driver_expects() -> None:
    from longscan.core.ops.selective_scan.cpu import CHUNK
    from longscan.core.ops.selective_scan.cpu_kernels import CHUNK as compiled

    assert compiled == CHUNK


def test_the_compiled_exponential() -> None:
    """Within 1.5 units in the last place; 0 far below, infinite far above, NaN stays."""
    import numpy as np
    from numba import njit

    from longscan.core.ops._numba_math import exponential, power

    @njit
    def evaluate(x: Any, powers: Any, exponentials: Any) -> None:
        for index in range(x.size):
            powers[index] = power(x[index])
            exponentials[index] = exponential(x[index])

    x = np.concatenate([np.linspace(-125, 127, 400_001), [0.0, -1e-30, 1e-30]]).astype(np.float32)
    powers, exponentials = np.empty_like(x), np.empty_like(x)
    evaluate(x, powers, exponentials)
    exact = np.exp2(x.astype(np.float64))
    assert np.max(np.abs(powers - exact) / np.spacing(exact.astype(np.float32))) < 1.5
    edges = np.array([-1e4, -3e38, -np.inf, 1e4, np.inf, np.nan, 0.0], dtype=np.float32)
    powers, exponentials = np.empty_like(edges), np.empty_like(edges)
    evaluate(edges, powers, exponentials)
    for found in (powers, exponentials):
        assert found[:3].tolist() == [0.0, 0.0, 0.0]
        assert found[3:5].tolist() == [np.inf, np.inf]
        assert found[6] == 1.0
    wide = np.linspace(-700, 700, 1001)
    powers, exponentials = np.empty_like(wide), np.empty_like(wide)
    evaluate(wide, powers, exponentials)
    np.testing.assert_allclose(exponentials, np.exp(wide), rtol=1e-15)


def test_kernels_compile_where_nothing_can_be_cached() -> None:
    program = (
        "from numba.core import caching\n"
        "caching.FunctionCache._impl_class._locator_classes = []\n"
        "import torch, longscan.core.ops as ops\n"
        "x = torch.ones(1, 3, 2)\n"
        "print(ops.linear_scan(x, x, backend='cpu')[0, :, 0].tolist())\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "[1.0, 2.0, 3.0]", found.stderr
