"""The projections of Mamba whose gradients are not joined or added beforehand, against plain layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from longscan.core.mixers import create_mixer
from longscan.core.mixers.fused_projections import project_beside, project_in_halves

both = pytest.mark.parametrize("project", [project_in_halves, project_beside])


def plainly(project: Callable[..., tuple[Tensor, Tensor]], x: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    if project is project_in_halves:
        first, second = layer(x).chunk(2, dim=-1)
        return first, second
    return x, layer(x)


def gradients(function: Callable[[], tuple[Tensor, Tensor]], leaves: list[Tensor]) -> list[Tensor]:
    first, second = function()
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(y.shape, generator=generator) for y in (first, second)]
    loss = (first * weights[0]).sum() + (second * weights[1]).sum()
    return [first, second, *torch.autograd.grad(loss, leaves)]


@both
@pytest.mark.parametrize("autocast", [False, True])
def test_values_and_gradients_are_those_of_the_layer(
    project: Callable[..., tuple[Tensor, Tensor]], autocast: bool
) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 8, bias=False), torch.randn(2, 5, 6, requires_grad=True)
    leaves = [x, layer.weight]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = gradients(lambda: plainly(project, x, layer), leaves)
        found = gradients(lambda: project(x, layer), leaves)
    assert "Halves" in str(found[0].grad_fn) or "Beside" in str(found[1].grad_fn)
    for value, wanted in zip(found[1:], expected[1:], strict=True):
        assert value.dtype == wanted.dtype
        assert (value - wanted).abs().max() <= (2**-6 if autocast else 1e-6) * wanted.abs().max()


@both
def test_derivatives_of_both_orders(project: Callable[..., tuple[Tensor, Tensor]]) -> None:
    layer = nn.Linear(3, 4, bias=False).double()
    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)

    def call(given: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        twin = nn.Linear(3, 4, bias=False)
        del twin.weight
        twin.weight = weight
        return project(given, twin)

    leaves = (x, layer.weight.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@both
@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_what_needs_no_gradient(project: Callable[..., tuple[Tensor, Tensor]], frozen: str) -> None:
    layer, x = nn.Linear(6, 8, bias=False), torch.randn(2, 5, 6, requires_grad=frozen != "x")
    layer.weight.requires_grad_(frozen != "weight")
    leaf = layer.weight if frozen == "x" else x
    (found,) = gradients(lambda: project(x, layer), [leaf])[2:]
    (expected,) = gradients(lambda: plainly(project, x, layer), [leaf])[2:]
    assert (found - expected).abs().max() < 1e-5


@both
def test_layers_that_are_more_than_a_matrix_are_called(project: Callable[..., tuple[Tensor, Tensor]]) -> None:
    x = torch.randn(2, 5, 6, requires_grad=True)
    called = []
    hooked, biased = nn.Linear(6, 8, bias=False), nn.Linear(6, 8)

    def add_one(module: nn.Module, args: object, output: Tensor) -> Tensor:
        called.append(module)
        return output + 1

    hooked.register_forward_hook(add_one)
    replaced = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    for layer in (hooked, biased, replaced):
        found, expected = project(x, layer), plainly(project, x, layer)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(called) == 2


def test_one_half_alone_has_a_gradient() -> None:
    layer, x = nn.Linear(6, 8, bias=False), torch.randn(2, 5, 6, requires_grad=True)
    for half in (0, 1):
        (found,) = torch.autograd.grad(project_in_halves(x, layer)[half].square().sum(), x)
        (expected,) = torch.autograd.grad(layer(x).chunk(2, -1)[half].square().sum(), x)
        assert (found - expected).abs().max() < 1e-5


def test_a_layer_of_mamba_with_and_without() -> None:
    torch.manual_seed(0)
    mixer = create_mixer("mamba", 12)
    hooked = copy.deepcopy(mixer)
    for name, layer in hooked.named_modules():
        if name in ("in_proj", "x_proj"):
            layer.register_forward_hook(lambda module, args, output: None)
    x = torch.randn(2, 9, 12)
    found = []
    for model in (mixer, hooked):
        y = model(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    for value, wanted in zip(*found, strict=True):
        assert (value - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1e-3)
