"""The step as a PyTorch operator that changes the state in place, so that compilers see one node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._operators import call, needs_gradient, register
from . import plain
from .arguments import Arguments


def _step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    from . import triton

    return triton.run(Arguments(state, u, delta, A, B, C, D, z, delta_bias, delta_softplus))


def _step_fake(state: Tensor, u: Tensor, *_: Any) -> Tensor:
    return u.new_empty(u.shape)


_update = register("longscan::selective_state_update", _step, _step_fake, mutates_args=("state",))


def run(arguments: Arguments) -> Tensor:
    """Advance the state in place and return y."""
    wide = any(tensor.is_complex() or tensor.dtype == torch.float64 for tensor in arguments.tensors)
    if wide or needs_gradient(*arguments.tensors):
        return plain.run(arguments)
    return call(_update, *arguments)
