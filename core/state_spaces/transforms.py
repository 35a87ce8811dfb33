"""How real parameters stand for positive numbers: step sizes and the parts of A."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError, nearest

#: Smallest value that an initialisation may take, also where nothing is transformed (as published).
_FLOOR = 1e-4

_TRANSFORMS = {
    "none": lambda x: x,
    "exp": torch.exp,
    "relu": lambda x: F.relu(x) + _FLOOR,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}
_INVERSES = {
    "none": lambda y: y,
    "exp": torch.log,
    "relu": lambda y: y,
    "sigmoid": torch.logit,
    "softplus": lambda y: y + torch.log(-torch.expm1(-y)),
}


def check_transform(argument: str, name: str) -> None:
    """Raise ``UserError`` unless ``name`` is one of none, exp, relu, sigmoid and softplus."""
    if name not in _TRANSFORMS:
        raise UserError(f"{argument} is {name!r}; {nearest(name, _TRANSFORMS)}")


def transform(parameter: Tensor, name: str) -> Tensor:
    """Return the value of a parameter."""
    return _TRANSFORMS[name](parameter)


def inverse_transform(value: Tensor, name: str, floor: float = _FLOOR) -> Tensor:
    """Return the parameter whose value is ``value``, raised to ``floor`` first."""
    return _INVERSES[name](value.clamp(min=floor))
