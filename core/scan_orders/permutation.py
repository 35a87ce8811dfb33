"""Bring the tokens of a sequence into another order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Permute(torch.autograd.Function):
    """The gradient of reading in an order is reading in its inverse.

    Autograd knows only that the places are indices, which might repeat, and adds each gradient to where it came from:
    a sort, or atomic additions, where a copy does.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, index: Tensor, inverse: Tensor, dim: int) -> Tensor:
        return x.index_select(dim, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
        _, index, inverse, ctx.dim = inputs
        ctx.save_for_backward(index, inverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        index, inverse = ctx.saved_tensors
        return permute_tokens(gradients[0], inverse, index, ctx.dim), None, None, None


def permute_tokens(x: Tensor, index: Tensor, inverse: Tensor, dim: int = 1) -> Tensor:
    """Return ``x`` with dimension ``dim`` in another order, differentiable any number of times.

    Args:
        x: any shape and dtype, L along ``dim``.
        index: int64 (L,), a permutation: place k of the result is place ``index[k]`` of ``x``.
        inverse: int64 (L,), the inverse permutation; that it is one is not checked.
        dim: the dimension of the tokens.
    """
    if torch.is_grad_enabled() and x.requires_grad:  # else exporters, which do not know the class, see one operator
        return _Permute.apply(x, index, inverse, dim)
    return x.index_select(dim, index)
