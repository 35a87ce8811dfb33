"""Generators of synthetic series by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...core.errors import UserError, nearest

#: Draws ``count`` series of ``length`` steps: float32 (count, length), finite, on the generator's device.
Prior = Callable[[int, int, torch.Generator], Tensor]

_PRIORS: dict[str, Prior] = {}


def register_prior(name: str) -> Callable[[Prior], Prior]:
    """Decorator: make a generator available under ``name``.

    Raises:
        ValueError: if the name is taken.
    """

    def decorate(prior: Prior) -> Prior:
        if name in _PRIORS:
            raise ValueError(f"prior {name!r} is registered already")
        _PRIORS[name] = prior
        return prior

    return decorate


def list_priors() -> list[str]:
    """Return the names of all generators, sorted."""
    return sorted(_PRIORS)


def find_prior(name: str) -> Prior:
    """Return the generator ``name``.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in _PRIORS:
        raise UserError(f"prior {name!r} is unknown; {nearest(name, _PRIORS)}")
    return _PRIORS[name]


def draw(name: str, count: int, length: int, seed: int = 0, device: str | torch.device = "cpu") -> Tensor:
    """Draw ``count`` series of ``length`` steps from the generator ``name``.

    Returns float32 (count, length), the same for the same arguments on the same kind of device.

    Raises:
        UserError: an unknown name, or a number below 1.
    """
    prior = find_prior(name)
    if count < 1 or length < 2:
        raise UserError(f"{count} series of {length} steps: need one or more, of two steps or more")
    return prior(count, length, torch.Generator(device).manual_seed(seed))
