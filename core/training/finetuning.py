"""What of a pretrained model is trained, and how fast: freezing, layer-wise learning rates, low-rank adapters.

A model has an embedding, blocks in ``backbone.layers`` and a ``head``, as :class:`TokenModel` has: the names of its
parameters begin with ``backbone.layers.<i>.``, ``backbone.`` (the final norm) and ``head.``, all others belong to the
embedding. A model of language whose head is the embedding's matrix has no ``head.``. A model with other names says by
``layer_depths()`` how deep each parameter lies (0 before the blocks, i + 1 in block i, one more behind them), and by
``head_prefix`` what the names of its head begin with.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..adapters import LoraOptions
from ..errors import UserError, nearest

_BLOCK = re.compile(r"backbone\.layers\.(\d+)\.")


@dataclass(frozen=True)
class FinetuningConfig:
    """How a pretrained model is fine-tuned; by default all of it is trained alike.

    Args:
        freeze: what keeps its pretrained values, one or several of: ``embedding``; ``backbone``, which is all but the
            head (a linear probe); ``first:N``, the embedding and the first N blocks; or shell patterns of parameter
            names such as ``backbone.layers.0.*``. Whatever is frozen as a whole also runs as in evaluation, without
            dropout. With ``lora``, frozen layers get no adapter.
        layer_decay: factor on the learning rate from each block to the one before it: with n blocks, block i (from 0)
            has ``layer_decay ** (n - i)``, the embedding ``layer_decay ** (n + 1)``, head and final norm 1 (Bao et
            al. 2021, arXiv:2106.08254). It multiplies ``optimizer.lr_scale`` and ``optimizer.ssm_lr``.
        lora: train low-rank adapters and the head alone; everything else is frozen.
    """

    freeze: list[str] | str = field(default_factory=list)
    layer_decay: float = 1.0
    lora: LoraOptions | None = None

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"finetuning.layer_decay is {self.layer_decay}; expected 0 < factor ≤ 1")
        if isinstance(self.lora, Mapping):  # as a checkpoint holds it
            object.__setattr__(self, "lora", LoraOptions(**self.lora))

    @property
    def patterns(self) -> list[str]:
        """What to freeze, as a list."""
        return [self.freeze] if isinstance(self.freeze, str) else list(self.freeze)


def frozen_parameters(model: nn.Module, patterns: list[str]) -> set[str]:
    """Return the names of the parameters that ``patterns`` freeze (see :class:`FinetuningConfig`), every name of each.

    Raises:
        UserError: a pattern matches nothing, or names more blocks than there are.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    depths, head = layer_depths(model), getattr(model, "head_prefix", "head.")
    chosen: set[str] = set()
    for pattern in patterns:
        found = {name for name in named if _matches(name, pattern, depths, head)}
        if not found:
            raise UserError(f"finetuning.freeze: {pattern!r} matches no parameter; {nearest(pattern, named)}")
        chosen |= found
    ids = {id(named[name]) for name in chosen}
    return {name for name, parameter in named.items() if id(parameter) in ids}


def _matches(name: str, pattern: str, depths: Mapping[str, int], head: str) -> bool:
    if pattern == "embedding":
        return depths.get(name, 0) == 0
    if pattern == "backbone":
        return not name.startswith(head)
    if pattern.startswith("first:"):
        number, blocks = pattern.removeprefix("first:"), max(depths.values(), default=1) - 1
        if not number.isdecimal() or not 1 <= int(number) <= blocks:
            raise UserError(
                f"finetuning.freeze: {pattern!r}: the model has {blocks} blocks; give first:1 to first:{blocks}"
            )
        return depths.get(name, 0) <= int(number)
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Return how deep each parameter lies, by every name of it: 0 before the blocks, i + 1 in block i, and one more
    than the last block's behind them."""
    own = getattr(model, "layer_depths", None)
    if callable(own):
        return own()
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    behind = block_count(dict.fromkeys(names)) + 1

    def depth(name: str) -> int:
        if block := _BLOCK.match(name):
            return int(block[1]) + 1
        return behind if name.startswith(("backbone.", "head.")) else 0

    return {name: depth(name) for name in names}


def block_count(names: Mapping[str, Any]) -> int:
    """Return the number of blocks by the names of the parameters."""
    return max((int(block[1]) + 1 for name in names if (block := _BLOCK.match(name))), default=0)


def freeze(model: nn.Module, patterns: list[str]) -> set[str]:
    """Freeze what ``patterns`` match and return its names."""
    frozen = frozen_parameters(model, patterns)
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return frozen


def rest_frozen_modules(model: nn.Module) -> None:
    """Put every module of which nothing is trained into evaluation mode, with the dropout that follows it.

    Frozen features are thereby the same in each epoch, and batch norms keep their statistics. A block with an adapter
    in it is trained and keeps its dropout. The dropout that follows ``x`` is called ``x_dropout``.
    """
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
            owner, _, own = name.rpartition(".")
            follower = getattr(model.get_submodule(owner), f"{own}_dropout", None) if own else None
            if isinstance(follower, nn.Module):
                follower.eval()


def layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter by name; empty where ``decay`` is 1.

    Raises:
        UserError: the model has no blocks by which to decay.
    """
    if decay == 1:
        return {}
    depths = layer_depths(model)
    last = max(depths.values(), default=1)
    if last <= 1:
        raise UserError(f"finetuning.layer_decay: {type(model).__name__} has no parameters in backbone.layers")
    return {name: decay ** (last - depths[name]) for name, _ in model.named_parameters()}


def describe_trained(model: nn.Module, lora: bool) -> str:
    """Return a line such as ``LoRA: 12,288 of 470,702 parameters train (2.6 %)``; adapters count in both numbers."""
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    begin = "LoRA" if lora else "fine-tuning"
    return f"{begin}: {trained:,} of {total:,} parameters train ({100 * trained / total:.1f} %)"
