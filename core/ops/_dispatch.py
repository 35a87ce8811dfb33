"""The choice of a backend, common to all operators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

import torch

from ..errors import UserError

Implementation = TypeVar("Implementation")

#: Every backend name that some operator has; LONGSCAN_BACKEND may name any of them.
NAMES = ("reference", "cpu", "torch", "mamba_ssm")

_DEFAULT = {"cpu": "cpu", "cuda": "torch"}


def choose(
    operator: str, backends: Mapping[str, Implementation], backend: str | None, device: torch.device
) -> Implementation:
    """Return the entry of ``backends`` to run: ``backend``, else LONGSCAN_BACKEND, else the device's default.

    A backend named by the environment that this operator does not have gives way to the device's default, since the
    variable speaks to all operators at once. Raises ``UserError`` for unknown names, and for "cpu" on another device.
    """
    if backend is not None and backend not in backends:
        raise UserError(f"{operator}: backend={backend!r} is unknown; known: {', '.join(backends)}")
    if backend is None:
        name = os.environ.get("LONGSCAN_BACKEND") or None
        if name is not None and name not in NAMES:
            raise UserError(f"LONGSCAN_BACKEND={name!r} is unknown; known: {', '.join(NAMES)}")
        backend = name if name is not None and name in backends else _DEFAULT.get(device.type, "torch")
    if backend == "cpu" and device.type != "cpu":
        raise UserError(f"{operator}: backend='cpu' was given tensors on {device}; move them or use backend='torch'")
    return backends[backend]
