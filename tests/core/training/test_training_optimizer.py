"""Which parameter gets which learning rate and weight decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from longscan.core.errors import UserError
from longscan.core.training.optimizer import OptimizerConfig, build_optimizer, describe_groups, parameter_groups


class RootMeanSquareNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Layer(nn.Module):
    """The parameters of a Mamba layer, by their published names."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.norm = RootMeanSquareNorm(width)
        self.in_proj = nn.Linear(width, width)
        self.dt_proj = nn.Linear(2, width)
        self.A_log = nn.Parameter(torch.zeros(width, 3))
        self.D = nn.Parameter(torch.ones(width))
        self.frequency = nn.Parameter(torch.ones(5))
        self.frequency._no_weight_decay = True  # type: ignore[attr-defined]
        self.kernel = nn.Parameter(torch.ones(6))
        self.kernel._optim = {"lr": 1e-3, "weight_decay": 0.0}  # type: ignore[attr-defined]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.layers = nn.ModuleList([Layer()])
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)


def _kinds(config: OptimizerConfig, model: nn.Module | None = None) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in parameter_groups(model or Model(), config)}


def test_default_rule_is_that_of_caduceus() -> None:
    groups = _kinds(OptimizerConfig(lr=6e-3, weight_decay=0.1))
    assert {name: group["param_names"] for name, group in groups.items()} == {
        "decay": ["layers.0.in_proj.weight", "layers.0.dt_proj.weight"],
        "no_decay": [
            "embedding.weight",
            "layers.0.frequency",
            "layers.0.norm.weight",
            "layers.0.in_proj.bias",
            "norm.weight",
            "norm.bias",
        ],
        "ssm": ["layers.0.A_log", "layers.0.D", "layers.0.dt_proj.bias"],
        "declared, lr 0.001": ["layers.0.kernel"],
    }
    assert [(group["lr"], group["weight_decay"]) for group in groups.values()] == [
        (6e-3, 0.1),
        (1e-3, 0.0),
        (6e-3, 0.0),
        (6e-3, 0.0),
    ]


def test_hyenadna_rule_decays_all_but_what_declares_otherwise() -> None:
    groups = _kinds(OptimizerConfig(decay_biases=True, decay_norms=True, decay_embeddings=True))
    assert groups["no_decay"]["param_names"] == ["layers.0.frequency"]
    assert {"embedding.weight", "norm.bias", "layers.0.in_proj.bias"} <= set(groups["decay"]["param_names"])
    assert "layers.0.D" in groups["ssm"]["param_names"]


def test_own_learning_rates() -> None:
    groups = _kinds(OptimizerConfig(lr=1e-2, ssm_lr=1e-3, lr_scale={"embedding.*": 0.5, "layers.*.in_proj.*": 0.1}))
    assert groups["ssm, lr 0.001"]["lr"] == 1e-3
    assert groups["no_decay, lr 0.005"]["param_names"] == ["embedding.weight"]
    assert groups["decay, lr 0.001"]["param_names"] == ["layers.0.in_proj.weight"]


def test_every_trainable_parameter_is_in_one_group() -> None:
    model = Model()
    optimizer = build_optimizer(model, OptimizerConfig(ssm_lr=1e-4))
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    text = describe_groups(optimizer.param_groups)
    assert "decay: 2 tensors, 24 parameters, lr 0.001, weight decay 0.1" in text.splitlines()


@pytest.mark.parametrize(
    "name, kind", [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_optimizers_take_a_step(name: Any, kind: type) -> None:
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.5, weight_decay=0.0, momentum=0.0))
    assert type(optimizer) is kind
    before = model.bias.detach().clone()
    model.bias.grad, model.weight.grad = torch.ones(2), torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(model.bias.detach(), before - 0.5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr": 0.0}, "optimizer.lr must be positive, got 0.0"),
        ({"name": "adagrad"}, "adamw, adam or sgd"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**options)


def test_bad_models_and_patterns() -> None:
    with pytest.raises(UserError, match="no trainable parameter"):
        parameter_groups(nn.ReLU(), OptimizerConfig())
    with pytest.raises(UserError, match=r"'backbone.\*' matches no parameter"):
        parameter_groups(Model(), OptimizerConfig(lr_scale={"backbone.*": 0.1}))
    layer = Layer()
    layer.kernel._optim = {"betas": 1}  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="kernel declares"):
        parameter_groups(layer, OptimizerConfig())
