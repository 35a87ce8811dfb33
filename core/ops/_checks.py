"""Argument checks, common to all operators: each raises a UserError that names the argument before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError

_KINDS = {
    "floating": lambda tensor: tensor.is_floating_point(),
    "complex": lambda tensor: tensor.is_complex(),
    "floating or complex": lambda tensor: tensor.is_floating_point() or tensor.is_complex(),
}


def check_tensor(operator: str, name: str, tensor: Tensor, like: Tensor, kind: str = "floating") -> None:
    """``tensor`` is a tensor on the device of ``like``, of a floating (or complex) dtype."""
    if not isinstance(tensor, Tensor):
        raise UserError(f"{operator}: {name} is {type(tensor).__name__}, expected a tensor")
    if tensor.device != like.device:
        raise UserError(f"{operator}: {name} is on {tensor.device}, expected {like.device} like the first argument")
    if not _KINDS[kind](tensor):
        raise UserError(f"{operator}: {name} has dtype {tensor.dtype}, expected a {kind} dtype")


def check_shape(operator: str, name: str, tensor: Tensor, *allowed: tuple[Sequence[int], str]) -> None:
    """The shape of ``tensor`` is one of ``allowed``, each a (shape, description); -1 stands for any size."""
    found = tensor.shape
    for shape, _ in allowed:
        if len(found) != len(shape):
            continue
        # Comparisons, not membership in a tuple, which the compiler takes to be false for sizes that are symbols.
        for have, want in zip(found, shape, strict=True):
            if want != -1 and want != have:
                break
        else:
            return
    expected = " or ".join(f"{description} = {_show(shape)}" for shape, description in allowed)
    raise UserError(f"{operator}: {name} has shape {tuple(tensor.shape)}, expected {expected}")


def check_ranks(operator: str, name: str, tensor: Tensor, rank: int, description: str) -> None:
    """``tensor`` has ``rank`` axes, none of them empty."""
    if not isinstance(tensor, Tensor):
        raise UserError(f"{operator}: {name} is {type(tensor).__name__}, expected a tensor {description}")
    if tensor.ndim != rank or 0 in tensor.shape:
        raise UserError(
            f"{operator}: {name} has shape {tuple(tensor.shape)}, expected {rank} non-empty axes {description}"
        )


def check_cu_seqlens(operator: str, cu_seqlens: Tensor | None, like: Tensor) -> int:
    """Check what does not need the values, and return the number of sequences, ``like`` being (batch, length, ...)."""
    if cu_seqlens is None:
        return like.shape[0]
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dtype not in (torch.int32, torch.int64):
        found = cu_seqlens.dtype if isinstance(cu_seqlens, Tensor) else type(cu_seqlens).__name__
        raise UserError(f"{operator}: cu_seqlens is {found}, expected an int32 or int64 tensor")
    if cu_seqlens.ndim != 1 or cu_seqlens.numel() < 2:
        raise UserError(f"{operator}: cu_seqlens has shape {tuple(cu_seqlens.shape)}, expected (num_sequences + 1,)")
    if cu_seqlens.device != like.device:
        raise UserError(f"{operator}: cu_seqlens is on {cu_seqlens.device}, expected {like.device}")
    if like.shape[0] != 1:
        raise UserError(f"{operator}: cu_seqlens needs batch 1 (one packed row), given batch {like.shape[0]}")
    return cu_seqlens.numel() - 1


def _show(shape: Sequence[int]) -> str:
    return "(" + ", ".join("any" if size < 0 else str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"
