"""Packed sequences: many sequences laid end to end in a batch of one, and the padded batch that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def sequence_index(cu_seqlens: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return for each packed token the sequence it belongs to and its position in it, both (length,) int64.

    Args:
        cu_seqlens: (sequences + 1) boundaries, from 0 to ``length``.
    """
    cu_seqlens = cu_seqlens.to(torch.int64)
    token = torch.arange(length, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens[1:], token, right=True)
    return sequence, token - cu_seqlens[sequence]


def unpack(x: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Spread packed (1, total, channels) over a zero-padded batch (sequences, longest, channels).

    Returns the batch and the index that :func:`repack` needs to undo this. Tokens start at position 0, so a causal
    mixer never sees the padding behind them.
    """
    index = sequence_index(cu_seqlens, x.shape[1])
    longest = int((cu_seqlens[1:] - cu_seqlens[:-1]).max())
    batch = x.new_zeros(len(cu_seqlens) - 1, longest, x.shape[2])
    return batch.index_put(index, x[0]), index


def repack(batch: Tensor, index: tuple[Tensor, Tensor]) -> Tensor:
    """Undo :func:`unpack`: (sequences, longest, channels) to (1, total, channels)."""
    return batch[index].unsqueeze(0)


def turn(batch: Tensor, index: tuple[Tensor, Tensor], cu_seqlens: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Turn each sequence of an :func:`unpack`-ed batch round: its last token comes first, the padding stays behind.

    Returns the turned batch and the index with which :func:`repack` undoes both.
    """
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).to(batch.device)
    backwards = (index[0], lengths[index[0]] - 1 - index[1])
    return torch.zeros_like(batch).index_put(backwards, batch[index]), backwards


def mix_sequences(
    mix: Callable[[Tensor, Any], tuple[Tensor, Any]], x: Tensor, state: Any, cu_seqlens: Tensor | None, reverse: bool
) -> Tensor:
    """Return what a mixer that knows neither packing nor direction makes of ``x``, in either.

    Args:
        mix: (batch, length, d_model) and a state to outputs of that shape and the state after them.
        x: (batch, length, d_model), or packed sequences (1, total, d_model).
        state: before the first position, of each batch row or packed sequence.
        cu_seqlens: (sequences + 1,), where packed sequences begin and end.
        reverse: from the last position to the first.
    """
    if cu_seqlens is not None:
        batch, index = unpack(x, cu_seqlens)
        if reverse:
            batch, index = turn(batch, index, cu_seqlens)
        return repack(mix(batch, state)[0], index)
    if reverse:
        return mix(x.flip(1), state)[0].flip(1)
    return mix(x, state)[0]
