"""Operators called past PyTorch's dispatcher where nothing needs it, and through it where something does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_cases import normal
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from longscan.core.ops import linear_scan, short_conv
from longscan.core.ops._operators import _DIRECT

CASES: dict[str, tuple[Any, dict[str, Tensor], dict[str, Any]]] = {
    "short_conv": (
        short_conv,
        {"x": normal(2, 5, 3), "weight": normal(3, 4), "bias": normal(3)},
        {"activation": "silu", "return_final_state": True},
    ),
    "linear_scan": (linear_scan, {"a": torch.rand(2, 5, 3).double(), "x": normal(2, 5, 3)}, {}),
}
every_case = pytest.mark.parametrize("name", list(CASES))


class Recorder(TorchDispatchMode):
    """Names of the operators that pass the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


class Marked(Tensor):
    """A subclass, which PyTorch passes to every operator as it is."""


def gradients(name: str) -> list[Tensor]:
    function, inputs, options = CASES[name]
    leaves = [tensor.clone().requires_grad_() for tensor in inputs.values()]
    outputs = function(**dict(zip(inputs, leaves, strict=True)), **options, backend="torch")
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [*outputs, *torch.autograd.grad(sum(output.square().sum() for output in outputs), leaves)]


@every_case
def test_both_ways_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Recorder() as seen:
        through = gradients(name)
    assert f"longscan.{name}.default" in seen.names
    assert f"longscan.{name}_backward.default" in seen.names
    entries = {str(overload): (overload, entry) for overload, entry in _DIRECT.items()}
    called = []
    for operator in (name, f"{name}_backward"):
        overload, (function, differentiable) = entries[f"longscan.{operator}.default"]

        def spy(*arguments: Any, function: Any = function, operator: str = operator) -> Any:
            called.append(operator)
            return function(*arguments)

        if differentiable is None:
            monkeypatch.setitem(_DIRECT, overload, (spy, None))
        else:
            forward = staticmethod(lambda ctx, *inputs, made=differentiable: made.forward(ctx, *inputs))
            monkeypatch.setitem(_DIRECT, overload, (spy, type("Spied", (differentiable,), {"forward": forward})))
    past = gradients(name)
    assert called == [f"{name}_backward"]
    for a, b in zip(past, through, strict=True):
        assert torch.equal(a, b)


@every_case
def test_nothing_is_recorded_without_gradients(name: str) -> None:
    function, inputs, options = CASES[name]
    result = function(**{key: value.clone().requires_grad_() for key, value in inputs.items()}, **options)
    assert (result[0] if isinstance(result, tuple) else result).grad_fn is not None
    with torch.no_grad():
        result = function(**{key: value.clone().requires_grad_() for key, value in inputs.items()}, **options)
    assert not (result[0] if isinstance(result, tuple) else result).requires_grad


def test_subclasses_pass_the_dispatcher() -> None:
    x, weight = normal(2, 5, 3), normal(3, 4)
    y = short_conv(x.as_subclass(Marked), weight, backend="torch")
    assert isinstance(y, Marked)
    expected = short_conv(x, weight, backend="torch")
    assert isinstance(expected, Tensor)
    assert torch.equal(y.as_subclass(Tensor), expected)
