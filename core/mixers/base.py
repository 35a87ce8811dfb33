"""The one interface of every sequence mixer, and the registry by which configurations name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import UserError, nearest

#: A mixer's recurrent state: a named tuple of tensors (and integers), a pytree that can be cloned, saved and moved.
State = Any


class SequenceMixer(nn.Module):
    """Maps a sequence (batch, length, d_model) to one of the same shape.

    For a causal mixer ``forward``, ``prefill`` and a loop of ``step`` compute the same function to rounding, and
    ``prefill`` on pieces with the state carried between them equals one call on the whole.

    Attributes:
        causal: whether position ``t`` of the output depends on positions ``0 … t`` alone.
        supports_reverse: whether ``forward(…, reverse=True)`` (from the last token to the first) is available.
    """

    causal: bool = True
    supports_reverse: bool = False

    def forward(
        self, x: Tensor, *, state: State | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """Mix the whole sequence in parallel.

        Args:
            x: (batch, length, d_model).
            state: the state to start from; ``None`` starts empty.
            cu_seqlens: (sequences + 1) boundaries of sequences packed into a batch of one; they never mix.
            reverse: run from the last token to the first, by indexing backwards.

        Raises:
            ValueError: where the mixer cannot honour an option.
        """
        raise NotImplementedError

    def prefill(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Mix (batch, length, d_model) from ``state`` and return the output and the state after the last token."""
        raise self._not_causal("prefill")

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Return the empty state for ``batch_size`` sequences."""
        raise self._not_causal("init_state")

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one token: (batch, d_model) to (batch, d_model).

        The tensors of ``state`` may be overwritten and belong to the returned state; clone them with
        :func:`clone_state` to keep a snapshot. For gradients through time use ``prefill``.
        """
        raise self._not_causal("step")

    def _not_causal(self, method: str) -> ValueError:
        return ValueError(
            f"{type(self).__name__}.{method} needs a causal mixer, and this one looks in both directions; "
            "call forward on the whole sequence instead"
        )


def clone_state(state: State) -> State:
    """Return a copy of a mixer's or a whole model's state that later steps leave alone."""
    return torch.utils._pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, state)


_MIXERS: dict[str, type[SequenceMixer]] = {}
MixerClass = TypeVar("MixerClass", bound=type[SequenceMixer])


def register_mixer(name: str) -> Callable[[MixerClass], MixerClass]:
    """Class decorator: make a mixer available to configurations under ``name``.

    Raises:
        ValueError: if the name is taken.
    """

    def decorate(cls: MixerClass) -> MixerClass:
        if name in _MIXERS:
            raise ValueError(f"mixer {name!r} is registered already, by {_MIXERS[name].__name__}")
        _MIXERS[name] = cls
        return cls

    return decorate


def list_mixers() -> list[str]:
    """Return the names of all registered mixers, sorted."""
    return sorted(_MIXERS)


def create_mixer(name: str, d_model: int, **options: Any) -> SequenceMixer:
    """Build the mixer registered as ``name`` for width ``d_model``.

    Raises:
        UserError: for an unknown name (the nearest ones are named) or an option that the mixer does not have.
    """
    if name not in _MIXERS:
        raise UserError(f"mixer {name!r} is unknown; {nearest(name, _MIXERS)}")
    try:
        return _MIXERS[name](d_model, **options)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"mixer {name!r}: {error}") from error
