"""Parameters that need another treatment than most, declared by the module that owns them.

What is written on a parameter itself is lost where the parameter is replaced: by ``copy.deepcopy``, by
``torch.distributed.fsdp.fully_shard``, by assigning another one. The module stays, and so does what it says of the
parameters by their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

#: The attribute of a module: name of a parameter of its own to ``{"lr": …, "weight_decay": …}``.
ATTRIBUTE = "parameter_settings"


def declare(module: nn.Module, *names: str, lr: float | None = None) -> None:
    """Say that parameters of ``module`` have no weight decay, and a learning rate of their own.

    Args:
        module: which owns them.
        names: their attributes in it.
        lr: the learning rate; None is the optimiser's, and 0 freezes them.
    """
    settings: dict[str, dict[str, float]] = module.__dict__.setdefault(ATTRIBUTE, {})
    for name in names:
        parameter = getattr(module, name)
        if lr == 0:
            parameter.requires_grad_(False)
        settings[name] = {"weight_decay": 0.0} if lr is None else {"lr": lr, "weight_decay": 0.0}


def declared_settings(module: nn.Module, name: str) -> dict[str, Any]:
    """Return what ``module``, or else the parameter's own ``_optim``, says of its parameter ``name``; may be empty."""
    own = getattr(module, ATTRIBUTE, {}).get(name)
    return own if own is not None else getattr(getattr(module, name), "_optim", None) or {}


def declared_names(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the settings of every declared parameter of ``model`` by its full name."""
    return {
        f"{prefix}.{name}" if prefix else name: settings
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if (settings := declared_settings(module, name))
    }


class FullPrecision(nn.Module):
    """Mixin of modules whose declared parameters stay in float32 where ``half()``, ``bfloat16()`` or ``to(dtype)``
    take the rest to half precision.

    Step sizes and poles are multiplied by up to a million positions: with the eight bits of bfloat16, a pole of 0.999
    is one of 1. Devices change, and ``double()`` applies, as ever. A subclass may name others in
    ``full_precision_names``.
    """

    def full_precision_names(self) -> tuple[str, ...]:
        """Return the names of the parameters that stay."""
        return tuple(getattr(self, ATTRIBUTE, {}))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What nn.Module's half(), to() and cuda() are made of: fn is called with each parameter and each gradient.
        own = dict(self.named_parameters(recurse=False))
        kept = [own[name] for name in self.full_precision_names()]
        kept += [parameter.grad for parameter in kept if parameter.grad is not None]  # type: ignore[misc]

        def apply(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            if result.dtype in (torch.float16, torch.bfloat16) and any(tensor is one for one in kept):
                return tensor.to(result.device)
            return result

        return super()._apply(apply, recurse)
