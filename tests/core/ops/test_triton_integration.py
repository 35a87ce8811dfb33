"""Kernels inside models and inside PyTorch's machinery: compilers, exporters, CUDA graphs, checkpointing, autocast.

Without a GPU Triton's interpreter runs the kernels; tests marked ``gpu`` need one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from operator_cases import distance, normal, selective_scan_inputs
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from longscan.core.backbone import Backbone, BackboneConfig
from longscan.core.mixers import create_mixer
from longscan.core.ops import linear_scan, long_conv, residual_norm, selective_scan, short_conv

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: The interpreter cuts off what rounding to nearest would round.
BFLOAT16 = 2**-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_backbone_with_the_kernels(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Additions and norms of a stack, trained and step by step, against the plain path."""
    config = BackboneConfig(d_model=12, layers=["gated_mlp", {"mixer": "attention", "channel_mixer": "mlp"}])
    plain = Backbone(config).to(DEVICE, dtype)
    x = normal(2, 5, 12).to(DEVICE, dtype)
    found = {}
    for backend in ("torch", "triton"):
        monkeypatch.setenv("LONGSCAN_BACKEND", backend)
        backbone = copy.deepcopy(plain)
        given = x.clone().requires_grad_()
        y = backbone(given)
        (y * torch.linspace(-1, 1, 12, device=DEVICE)).sum().backward()
        with torch.no_grad():
            step, _ = backbone.step(x[:, 0], backbone.init_state(2))
            prefilled, _ = backbone.prefill(x)
        parameters = {name: parameter.grad for name, parameter in backbone.named_parameters()}
        found[backend] = {"y": y, "step": step, "prefilled": prefilled, "x": given.grad, **parameters}
    tolerance = 1e-5 if dtype == torch.float32 else 8 * BFLOAT16
    for key, value in found["torch"].items():
        assert distance(found["triton"][key].cpu().double(), value.cpu().double()) < tolerance, key


def test_hooks_see_the_whole_stream() -> None:
    """A block that somebody listens to gives its sum; the result is the same."""
    backbone = Backbone(BackboneConfig(d_model=8, layers=["gated_mlp"], repeat=3)).eval()
    x = torch.randn(2, 4, 8)
    expected = backbone(x)
    seen: list[Tensor] = []
    backbone.blocks()[1].register_forward_hook(lambda module, args, output: seen.append(output))
    assert torch.equal(backbone(x), expected)
    blocks = backbone.blocks()
    assert torch.equal(seen[0], blocks[1](blocks[0](x)))


def test_a_block_adds_what_the_backbone_leaves_to_the_next_norm() -> None:
    """The three ways through a block return the whole stream."""
    config = BackboneConfig(d_model=8, layers=[{"mixer": "mamba", "channel_mixer": "gated_mlp"}], repeat=2)
    backbone = Backbone(config).eval()
    x = torch.randn(2, 4, 8)
    with torch.no_grad():
        whole, prefilled, steps = x, x, x[:, 0]
        for block in backbone.blocks():
            whole, prefilled = block(whole), block.prefill(prefilled, None)[0]
            steps = block.step(steps, block.mixer.init_state(2))[0]
        assert torch.equal(backbone.final_norm(whole), backbone(x))
        assert torch.equal(backbone.final_norm(prefilled), backbone.prefill(x)[0])
        assert torch.equal(backbone.final_norm(steps), backbone.step(x[:, 0], backbone.init_state(2))[0])


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_stack_compiles_whole(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph with gradients, and one for a step that changes its state in place."""
    monkeypatch.setenv("LONGSCAN_BACKEND", backend)
    config = BackboneConfig(d_model=8, layers=[{"mixer": "mamba", "channel_mixer": "gated_mlp"}])
    backbone = Backbone(config).to(DEVICE)
    mixer = backbone.blocks()[0].mixer
    x = normal(2, 5, 8).float().to(DEVICE)
    compiled = copy.deepcopy(backbone)
    run_compiled = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for stack in (backbone, run_compiled):
        y = stack(x)
        (y * torch.linspace(-1, 1, 8, device=DEVICE)).sum().backward()
    for plain, other in zip(backbone.parameters(), compiled.parameters(), strict=True):
        assert distance(other.grad.cpu(), plain.grad.cpu()) < 1e-5
    with torch.no_grad():
        states = [mixer.init_state(2), mixer.init_state(2)]
        expected, _ = mixer.step(x[:, 0], states[0])
        found, _ = torch.compile(mixer.step, fullgraph=True, backend="aot_eager")(x[:, 0], states[1])
    assert distance(found.cpu(), expected.cpu()) < 1e-6
    for plain, other in zip(*states, strict=True):
        assert plain.abs().max() > 0
        assert distance(other.cpu(), plain.cpu()) < 1e-6


def test_a_mamba_step_with_the_kernels_continues_a_prefill() -> None:
    mixer = create_mixer("mamba", 16).to(DEVICE)
    x = normal(2, 9, 16).float().to(DEVICE)
    with torch.no_grad():
        whole = mixer(x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LONGSCAN_BACKEND", "triton")
            state = mixer.init_state(2)
            for t in range(9):
                y, state = mixer.step(x[:, t], state)
                assert distance(y.cpu(), whole[:, t].cpu()) < 1e-4


# Every operator on a GPU


class _Call(nn.Module):
    """An operator with its options, as a module: what exporters take."""

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...], options: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.names, self.options = function, names, options

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(**dict(zip(self.names, tensors, strict=True)), **self.options)


def operators() -> dict[str, tuple[Callable[..., Any], dict[str, Tensor], dict[str, Any]]]:
    """Every operator that differentiates, with small float32 inputs and options."""
    return {
        "selective_scan": (
            selective_scan,
            selective_scan_inputs(2, 37, 48, 16, dtype=torch.float32),
            {"delta_softplus": True, "return_final_state": True},
        ),
        "linear_scan": (
            linear_scan,
            {"a": torch.rand(2, 37, 48), "x": normal(2, 37, 48).float(), "initial_state": normal(2, 48).float()},
            {"return_final_state": True, "reverse": True},
        ),
        "short_conv": (
            short_conv,
            {"x": normal(2, 37, 48).float(), "weight": normal(48, 4).float(), "bias": normal(48).float()},
            {"activation": "silu", "return_final_state": True},
        ),
        "long_conv": (
            long_conv,
            {"u": normal(2, 37, 48).float(), "kernel": normal(48, 37).float(), "skip": normal(48).float()},
            {},
        ),
        "residual_norm": (
            residual_norm,
            {"x": normal(9, 48).float(), "weight": normal(48).float(), "residual": normal(9, 48).float()},
            {"return_residual": True, "kind": "layer"},
        ),
    }


every_operator = pytest.mark.parametrize("name", list(operators()))


def gradients(call: Callable[..., Any], tensors: list[Tensor]) -> list[Tensor]:
    """Outputs and the gradients of the sum of their squares."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    outputs = call(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    found = torch.autograd.grad(sum(output.float().square().sum() for output in outputs), leaves)
    return [*(output.detach() for output in outputs), *found]


def same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == wanted.dtype
        assert distance(got.double(), wanted.double()) <= tolerance


@pytest.mark.gpu
@every_operator
def test_compile_export_and_checkpoint(name: str) -> None:
    function, inputs, options = operators()[name]
    tensors = [tensor.cuda() for tensor in inputs.values()]
    module = _Call(function, tuple(inputs), options)
    expected = gradients(module, tensors)
    same(gradients(torch.compile(module, fullgraph=True), tensors), expected)
    checkpointed = partial(checkpoint, module, use_reentrant=False)
    same(gradients(checkpointed, tensors), expected, 0.0)
    with torch.no_grad():
        outputs = module(*tensors)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        exported = torch.export.export(module, tuple(tensors)).module()(*tensors)
        same(list(exported) if isinstance(exported, tuple) else [exported], outputs)


@pytest.mark.gpu
@every_operator
def test_autocast_and_repeated_bits(name: str) -> None:
    function, inputs, options = operators()[name]
    tensors = [tensor.cuda() for tensor in inputs.values()]
    module = _Call(function, tuple(inputs), options)
    plain = gradients(module, tensors)
    same(gradients(module, tensors), plain, 0.0)
    with torch.autocast("cuda", torch.bfloat16):
        same(gradients(module, tensors), plain)  # float32 inputs keep their precision


@pytest.mark.gpu
@every_operator
def test_forward_in_a_cuda_graph(name: str) -> None:
    function, inputs, options = operators()[name]
    module = _Call(function, tuple(inputs), options)
    check_graph(lambda *tensors: module(*tensors), [tensor.cuda() for tensor in inputs.values()])


def check_graph(call: Callable[..., Any], tensors: list[Tensor], tolerance: float = 1e-5) -> None:
    """Capture ``call``, replay it on other inputs and compare with calling it on them."""
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call(*tensors)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = call(*tensors)
        for tensor in tensors:
            tensor.copy_(tensor.flip(0))
        expected = call(*[tensor.clone() for tensor in tensors])
        graph.replay()
    outputs, expected = (list(o) if isinstance(o, tuple) else [o] for o in (outputs, expected))
    same(outputs, expected, tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mamba_in_a_cuda_graph(dtype: torch.dtype) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else BFLOAT16
    mixer = create_mixer("mamba", 32).to("cuda", dtype)
    check_graph(mixer, [normal(2, 65, 32).to("cuda", dtype)], tolerance)
    x, state, twin = normal(4, 2, 32).to("cuda", dtype), mixer.init_state(2), mixer.init_state(2)
    token = x[0].clone()
    with torch.no_grad():
        mixer.step(token, twin)  # compiles the kernels
        twin = mixer.init_state(2)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y, _ = mixer.step(token, state)  # changes the state in place, at every replay
        for tensor in state:
            tensor.zero_()
        for t in range(4):
            token.copy_(x[t])
            graph.replay()
            expected, twin = mixer.step(x[t], twin)
            same([y], [expected], tolerance)
        same(list(state), list(twin), tolerance)


@pytest.mark.gpu
def test_steps_compile() -> None:
    mixer = create_mixer("mamba", 32).cuda()
    x, state = normal(2, 32).float().cuda(), mixer.init_state(2)
    with torch.no_grad():
        expected, after = mixer.step(x, mixer.init_state(2))
        found, state = torch.compile(mixer.step, fullgraph=True)(x, state)
    assert distance(found, expected) < 1e-5
    assert all(distance(a, b) < 1e-5 for a, b in zip(state, after, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_step_of_a_stack_under_autocast(checkpointing: bool) -> None:
    """Gradients in bf16-mixed, eager and compiled, against float32 of the plain path."""
    layers = ["mamba", {"mixer": "mamba", "channel_mixer": "gated_mlp"}]
    backbone = Backbone(BackboneConfig(d_model=64, layers=layers, gradient_checkpointing=checkpointing)).cuda()
    x = normal(2, 130, 64).float().cuda()

    def train(run: nn.Module, enabled: bool) -> list[Tensor]:
        backbone.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            y = run(x)
        assert y.dtype == torch.float32
        (y * torch.linspace(-1, 1, 64, device="cuda")).sum().backward()
        return [y.detach(), *(parameter.grad.clone() for parameter in backbone.parameters())]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSCAN_BACKEND", "torch")
        expected = train(backbone, False)
    same(train(backbone, False), expected, 1e-4)
    same(train(backbone, True), expected, 0.1)
    same(train(torch.compile(backbone), True), expected, 0.1)
