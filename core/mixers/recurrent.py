"""Base of mixers that run over whole sequences from a state, and know neither packing nor direction."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..packing import mix_sequences
from .base import SequenceMixer, State


class RecurrentMixer(SequenceMixer):
    """A causal mixer that says in :meth:`mix` what it makes of sequences of one length.

    Packed sequences are spread over a padded batch for it, and turned round for ``reverse``; with ``cu_seqlens`` a
    given state is that of the packed sequences.
    """

    causal = True
    supports_reverse = True

    def mix(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the outputs (batch, length, d_model) for inputs of that shape, and the state behind them; ``None``
        is the empty state."""
        raise NotImplementedError(f"{type(self).__name__} must implement mix(x, state)")

    def forward(
        self, x: Tensor, *, state: State | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`."""
        return mix_sequences(self.mix, x, state, cu_seqlens, reverse)

    def prefill(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See :meth:`SequenceMixer.prefill`."""
        return self.mix(x, state)
