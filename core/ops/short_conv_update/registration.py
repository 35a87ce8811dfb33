"""The step as a PyTorch operator that changes the state in place, so that compilers see one node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._operators import call, needs_gradient, register
from . import plain
from .arguments import Arguments


def _step(state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    from . import triton

    return triton.run(Arguments(state, x, weight, bias, silu))


def _step_fake(state: Tensor, x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


_update = register("longscan::short_conv_update", _step, _step_fake, mutates_args=("state",))


def run(arguments: Arguments) -> Tensor:
    """Advance the state in place and return y."""
    wide = any(tensor.dtype == torch.float64 for tensor in arguments.tensors)
    if wide or needs_gradient(*arguments.tensors):
        return plain.run(arguments)
    return call(_update, *arguments)
