"""Kernels of a whole model made ready for the longest input, before several processes or a compiler take it."""

from __future__ import annotations

from torch import nn


def set_kernel_length(model: nn.Module, length: int) -> None:
    """Make every kernel in ``model`` that depends on a length (those of S4) ready for inputs of up to ``length``.

    Call it before ``DistributedDataParallel``, ``fully_shard`` or ``torch.compile``; growing later is an error there.
    A module with a method ``set_length(length)`` decides itself what that means for its parts, as one that pools does.

    Args:
        model: any module.
        length: positions of the longest input.
    """
    own = getattr(model, "set_length", None)
    if callable(own):
        own(length)
        return
    for child in model.children():
        set_kernel_length(child, length)
