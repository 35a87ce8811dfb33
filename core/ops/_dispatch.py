"""The choice of a backend, common to all operators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TypeVar

import torch

from ..errors import UserError

Implementation = TypeVar("Implementation")

#: Every backend name that some operator has; LONGSCAN_BACKEND may name any of them.
NAMES = ("reference", "cpu", "torch", "triton", "mamba_ssm")

_DEFAULT = {"cpu": "cpu", "cuda": "triton"}

#: Whether Triton is installed; looked up once, since a graph being compiled cannot.
_HAS_TRITON = find_spec("triton") is not None


def choose(
    operator: str, backends: Mapping[str, Implementation], backend: str | None, device: torch.device
) -> Implementation:
    """Return the entry of ``backends`` to run: ``backend``, else LONGSCAN_BACKEND, else the device's default.

    A backend named by the environment that this operator does not have gives way to the device's default, since the
    variable speaks to all operators at once. Raises ``UserError`` for unknown names, for "cpu" on another device, and
    for "triton" where there is no GPU.
    """
    if backend is not None and backend not in backends:
        raise UserError(f"{operator}: backend={backend!r} is unknown; known: {', '.join(backends)}")
    if backend is None:
        name = os.environ.get("LONGSCAN_BACKEND") or None
        if name is not None and name not in NAMES:
            raise UserError(f"LONGSCAN_BACKEND={name!r} is unknown; known: {', '.join(NAMES)}")
        backend = name if name is not None and name in backends else _default(backends, device)
    if backend == "cpu" and device.type != "cpu":
        raise UserError(f"{operator}: backend='cpu' was given tensors on {device}; move them or use backend='torch'")
    if backend == "triton" and device.type != "cuda" and not _interpreted():
        raise UserError(f"{operator}: backend='triton' was given tensors on {device}; move them to a GPU")
    return backends[backend]


def _default(backends: Mapping[str, Implementation], device: torch.device) -> str:
    """The best backend of the device that this operator has, and whose package is installed."""
    name = _DEFAULT.get(device.type, "torch")
    return "torch" if name == "triton" and not (_HAS_TRITON and name in backends) else name


def _interpreted() -> bool:
    """Whether Triton interprets its kernels, which then also run on a CPU (slowly: for tests)."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
