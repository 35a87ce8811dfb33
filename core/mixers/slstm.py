"""sLSTM, the xLSTM layer with a scalar memory and recurrent gates (Beck et al. 2024, arXiv:2405.04517)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..norms import float32_at_least
from .base import register_mixer
from .mlstm import HeadwiseLayerNorm, common_heads
from .recurrent import RecurrentMixer


class SLSTMState(NamedTuple):
    """What the sLSTM carries between tokens, each (batch, d_model), float32 (float64 for float64 layers)."""

    h: Tensor
    """Output of the cell."""
    c: Tensor
    """Memory, times exp(-m)."""
    n: Tensor
    """Normaliser, times exp(-m)."""
    m: Tensor
    """Stabiliser; -inf before the first token."""


@register_mixer("slstm")
class SLSTM(RecurrentMixer):
    """The sLSTM with block-diagonal recurrence over heads (equations 8 to 18)::

        i, f, z, o = W x_t + R h_{t-1} + b
        m_t = max(log sigmoid(f) + m_{t-1}, i)
        c_t = exp(log sigmoid(f) + m_{t-1} - m_t) c_{t-1} + exp(i - m_t) tanh(z)        n_t likewise, with 1 for tanh(z)
        h_t = sigmoid(o) c_t / n_t
        out = out_proj(norm of each head (h))

    The gates see the last output, so that the layer cannot be computed in parallel: a loop over tokens, on every
    device. For long sequences take ``mlstm``. The output does not depend on m, which is taken without gradient.

    Args:
        d_model: width.
        n_heads: heads; they divide ``d_model``. None: 4, or the next fewer that does.
        norm: norm of each head before the output map.
        projection: the output map; without it, and without the norm, the layer is the bare cell.
        norm_eps: of the norm.

    Raises:
        ValueError: heads that do not divide ``d_model``.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int | None = None,
        norm: bool = True,
        projection: bool = True,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        n_heads = common_heads(d_model) if n_heads is None else n_heads
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads is {n_heads}, which does not divide d_model ({d_model})")
        self.n_heads = n_heads
        width = d_model // n_heads
        bound = 1 / math.sqrt(d_model)
        self.weight = nn.Parameter(torch.empty(4, d_model, d_model).uniform_(-bound, bound))
        self.recurrent = nn.Parameter(torch.empty(n_heads, width, 4 * width).uniform_(-bound, bound))
        bias = torch.zeros(4, d_model)
        bias[1] = torch.linspace(3.0, 6.0, d_model)  # memories of different lengths
        self.bias = nn.Parameter(bias)
        self.norm = HeadwiseLayerNorm(d_model, norm_eps) if norm else None
        self.out_proj = nn.Linear(d_model, d_model, bias=False) if projection else None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> SLSTMState:
        """See :meth:`SequenceMixer.init_state`."""
        dtype = torch.float64 if (dtype or self.weight.dtype) == torch.float64 else torch.float32
        zeros = torch.zeros(batch_size, self.weight.shape[1], device=device or self.weight.device, dtype=dtype)
        return SLSTMState(zeros, zeros.clone(), zeros.clone(), torch.full_like(zeros, float("-inf")))

    def step(self, x_t: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
        """See :meth:`SequenceMixer.step`; constant time and memory."""
        with torch.autocast(x_t.device.type, enabled=False):
            state = self._advance(self._gates(x_t.unsqueeze(1))[:, 0], state)
        return self._output(state.h, x_t.dtype), state

    def mix(self, x: Tensor, state: SLSTMState | None) -> tuple[Tensor, SLSTMState]:
        if state is None:
            state = self.init_state(len(x), x.device, x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            state = SLSTMState(*(part.to(float32_at_least(x).dtype) for part in state))
            outputs = []
            for gates in self._gates(x).unbind(1):
                state = self._advance(gates, state)
                outputs.append(state.h)
        return self._output(torch.stack(outputs, 1), x.dtype), state

    def _gates(self, x: Tensor) -> Tensor:
        """What the input gives to the gates, for all tokens at once: (batch, length, 4, d_model)."""
        weight = float32_at_least(self.weight)
        gates = F.linear(float32_at_least(x), weight.flatten(0, 1), float32_at_least(self.bias).flatten())
        return gates.unflatten(-1, weight.shape[:2])

    def _advance(self, gates: Tensor, state: SLSTMState) -> SLSTMState:
        """One token: gates (batch, 4, d_model)."""
        h, c, n, m = state
        heads = h.unflatten(-1, (self.n_heads, -1))
        seen = torch.einsum("bhd,hdg->bhg", heads, float32_at_least(self.recurrent))
        i, f, z, o = (gates + seen.unflatten(-1, (4, -1)).transpose(1, 2).flatten(2)).unbind(1)
        forget = F.logsigmoid(f) + m
        top = torch.maximum(forget, i).detach()
        kept, entered = torch.exp(forget - top), torch.exp(i - top)
        c, n = kept * c + entered * torch.tanh(z), kept * n + entered
        return SLSTMState(torch.sigmoid(o) * c / n, c, n, top)

    def _output(self, h: Tensor, dtype: torch.dtype) -> Tensor:
        if self.norm is not None:
            h = self.norm(h.unflatten(-1, (self.n_heads, -1)))
        h = h.to(dtype)
        return h if self.out_proj is None else self.out_proj(h)
