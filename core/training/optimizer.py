"""Optimisers and their parameter groups.

The default rule is that of Mamba and Caduceus: weight decay on matrices alone, none on biases, norms, embeddings and
the parameters of the recurrence (``A_log``, ``D``, the step-size bias). HyenaDNA's published recipe decays biases and
norms too: ``decay_biases=True, decay_norms=True, decay_embeddings=True`` reproduces it.

A layer may declare what its parameters need, as S4-style layers do, and that comes first:
:func:`longscan.core.declared_parameters.declare`, which outlives copies and sharding of the parameters. Of foreign
layers ``parameter._no_weight_decay = True`` and ``parameter._optim = {"lr": 1e-3, "weight_decay": 0.0}`` work too.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from ..declared_parameters import declared_settings
from ..errors import UserError

# Parameters of a recurrence by the names that published layers give them, with a suffix for a second direction:
# A_log, A_b_log, D, D_b, dt_bias, dt_proj.bias, dt_proj_b.bias.
_SSM_NAME = re.compile(r"(^|\.)(A(_\w+)?_log|D(_\w+)?|dt_bias(_\w+)?|dt_proj(_\w+)?\.bias)$")
_NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimiser, and which parameters it treats differently.

    Args:
        name: ``adamw`` (decoupled weight decay), ``adam`` (weight decay added to the gradient) or ``sgd``.
        lr: peak learning rate.
        betas: decay rates of Adam's two moments.
        eps: added to Adam's denominator.
        momentum: of SGD.
        weight_decay: of the parameters that decay.
        ssm_lr: peak learning rate of the parameters of recurrences; ``lr`` where None.
        lr_scale: factors on the learning rate by parameter name, such as ``{"backbone.*": 0.1}``; the first pattern
            (shell style) that matches counts.
        decay_biases: decay biases too.
        decay_norms: decay the weights of norms too.
        decay_embeddings: decay embeddings too.
        fused: one kernel per step instead of many; None leaves the choice to torch.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    weight_decay: float = 0.1
    ssm_lr: float | None = None
    lr_scale: dict[str, float] = field(default_factory=dict)
    decay_biases: bool = False
    decay_norms: bool = False
    decay_embeddings: bool = False
    fused: bool | None = None

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "adam", "sgd"):
            raise UserError(f"optimizer.name must be adamw, adam or sgd, got {self.name!r}")
        for name in ("lr", "ssm_lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"optimizer.{name} must be positive, got {value}")
        for name in ("weight_decay", "momentum", "eps"):
            if getattr(self, name) < 0:
                raise UserError(f"optimizer.{name} must not be negative, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas must be in [0, 1), got {list(self.betas)}")


def parameter_groups(
    model: nn.Module, config: OptimizerConfig, factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Sort the trainable parameters of ``model`` into groups of one learning rate and weight decay.

    Args:
        model: its frozen parameters (``requires_grad`` False) are in no group.
        config: what they are sorted by.
        factors: further factors on the learning rate by full parameter name, which multiply those of ``lr_scale``.

    Returns:
        Groups as torch optimisers take them (``params``, ``lr``, ``weight_decay``), each with a ``name`` made of its
        kind (``decay``, ``no_decay``, ``ssm``, ``declared``) and its learning rate where that is not ``config.lr``,
        and with ``param_names``. A parameter shared by several modules is in one group, once.

    Raises:
        UserError: the model has nothing to train, or a pattern of ``lr_scale`` matches nothing.
    """
    groups: dict[tuple[str, float, float], dict[str, Any]] = {}
    for name, parameter, owners, declared in _trainable(model):
        factor = (factors or {}).get(name, 1.0)
        kind, lr, weight_decay = _treatment(name, parameter, owners, declared, config, factor)
        title = kind if lr == config.lr else f"{kind}, lr {lr:g}"
        if kind == "declared" and weight_decay:
            title += f", weight decay {weight_decay:g}"
        group = groups.setdefault(
            (kind, lr, weight_decay),
            {"name": title, "params": [], "param_names": [], "lr": lr, "weight_decay": weight_decay},
        )
        group["params"].append(parameter)
        group["param_names"].append(name)
    if not groups:
        raise UserError("the model has no trainable parameter: every one has requires_grad False")
    result = sorted(groups.values(), key=lambda group: (group["name"] != "decay", group["name"]))
    names = [name for group in result for name in group["param_names"]]
    _check_patterns(names, config)
    grouped = [id(parameter) for group in result for parameter in group["params"]]
    wanted = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped)), "a parameter is in two groups"
    assert set(grouped) == wanted, "a trainable parameter is in no group"
    return result


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Return the optimiser of ``config`` over the :func:`parameter_groups` of ``model``."""
    groups = parameter_groups(model, config, factors)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=config.fused)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=config.fused)


def describe_groups(groups: list[dict[str, Any]]) -> str:
    """Return one line per group: its name, how much is in it, learning rate and weight decay."""
    lines = []
    for group in groups:
        count = sum(parameter.numel() for parameter in group["params"])
        lines.append(
            f"{group['name']}: {len(group['params'])} tensors, {count:,} parameters, "
            f"lr {group.get('initial_lr', group['lr']):g}, weight decay {group['weight_decay']:g}"
        )
    return "\n".join(lines)


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, list[nn.Module], dict[str, Any]]]:
    """Yield each trainable parameter once, by its first name, with every module that holds it and what the first of
    them that says something declares of it."""
    found: dict[int, tuple[str, nn.Parameter, list[nn.Module], dict[str, Any]]] = {}
    for module_name, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{module_name}.{own_name}" if module_name else own_name
            if parameter.requires_grad:
                _, _, owners, declared = found.setdefault(id(parameter), (name, parameter, [], {}))
                owners.append(module)
                if not declared:
                    declared.update(declared_settings(module, own_name))
    yield from found.values()


def _treatment(
    name: str,
    parameter: nn.Parameter,
    owners: list[nn.Module],
    declared: Mapping[str, Any],
    config: OptimizerConfig,
    factor: float,
) -> tuple[str, float, float]:
    """Return (kind, learning rate, weight decay) of one parameter, its learning rate multiplied by ``factor``."""
    scale = next((scale for pattern, scale in config.lr_scale.items() if fnmatch.fnmatchcase(name, pattern)), 1.0)
    scale *= factor
    if declared:
        unknown = sorted(set(declared) - {"lr", "weight_decay"})
        if unknown:
            raise UserError(f"parameter {name} declares {unknown}; only lr and weight_decay are understood")
        lr = declared.get("lr")
        weight_decay = declared.get("weight_decay")
        return (
            "declared",
            (config.lr if lr is None else lr) * scale,
            config.weight_decay if weight_decay is None else weight_decay,
        )
    if _SSM_NAME.search(name):
        return "ssm", (config.lr if config.ssm_lr is None else config.ssm_lr) * scale, 0.0
    if getattr(parameter, "_no_weight_decay", False) or _exempt(name, owners, config):
        return "no_decay", config.lr * scale, 0.0
    return "decay", config.lr * scale, config.weight_decay


def _exempt(name: str, owners: list[nn.Module], config: OptimizerConfig) -> bool:
    if any(_is_norm(module) for module in owners):
        return not config.decay_norms
    if any(isinstance(module, _EMBEDDINGS) for module in owners):
        return not config.decay_embeddings
    own_name = name.rpartition(".")[2]
    return (own_name == "bias" or own_name.endswith("_bias")) and not config.decay_biases


def _is_norm(module: nn.Module) -> bool:
    # Norms of our own, and of others, are called ...Norm.
    return isinstance(module, _NORMS) or type(module).__name__.endswith("Norm")


def _check_patterns(names: list[str], config: OptimizerConfig) -> None:
    for pattern in config.lr_scale:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UserError(f"optimizer.lr_scale: {pattern!r} matches no parameter; names look like {names[0]!r}")
