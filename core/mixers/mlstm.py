"""mLSTM, the xLSTM layer with a matrix memory (Beck et al. 2024, arXiv:2405.04517), as in the xLSTM-7B."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..norms import float32_at_least
from .base import register_mixer
from .mlstm_cell import MLSTMState, empty_state, mlstm, mlstm_step
from .recurrent import RecurrentMixer


def common_heads(*widths: int) -> int:
    """Return 4, or the next smaller number that divides all widths."""
    return next(heads for heads in (4, 3, 2, 1) if not any(width % heads for width in widths))


class HeadwiseLayerNorm(nn.Module):
    """Layer norm without bias over the features of each head: (…, heads, features) to (…, heads · features)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise in float32 at least."""
        return F.layer_norm(x, x.shape[-1:], eps=self.eps).flatten(-2) * float32_at_least(self.weight)


@register_mixer("mlstm")
class MLSTM(RecurrentMixer):
    """The mLSTM layer with the parameter names of the published xLSTM-7B::

        i, f = cap · tanh([igate_preact(x), fgate_preact(x)] / cap)
        h = mlstm(q(x), k(x), v(x), i, f)
        out = out_proj(sigmoid(ogate_preact(x)) · norm of each head (h))

    The gradient is exact, that of the normaliser included. See :mod:`longscan.core.mixers.mlstm_cell`.

    Args:
        d_model: width.
        n_heads: heads; they divide the widths of keys and values. None: 4, or the next fewer that does.
        qk_factor: width of queries and keys / d_model.
        v_factor: width of values / d_model.
        gate_soft_cap: cap of the input and forget gates before their exponential; None for none.
        bias: of all projections but those of the two gates, which always have one.
        eps: added to the denominator (1e-6 as published, 0 exact).
        norm_eps: of the norm of each head.
        chunk: tokens computed at once.

    Raises:
        ValueError: heads that do not divide the widths.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int | None = None,
        qk_factor: float = 0.5,
        v_factor: float = 1.0,
        gate_soft_cap: float | None = 15.0,
        bias: bool = False,
        eps: float = 1e-6,
        norm_eps: float = 1e-6,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        keys, values = max(1, int(d_model * qk_factor)), max(1, int(d_model * v_factor))
        n_heads = common_heads(keys, values) if n_heads is None else n_heads
        if n_heads < 1 or keys % n_heads or values % n_heads:
            raise ValueError(f"n_heads is {n_heads}, which does not divide keys ({keys}) and values ({values})")
        if gate_soft_cap is not None and not gate_soft_cap > 0:
            raise ValueError(f"gate_soft_cap is {gate_soft_cap}; expected more than 0 or None")
        self.n_heads, self.gate_soft_cap, self.eps, self.chunk = n_heads, gate_soft_cap, eps, chunk
        self.q = nn.Linear(d_model, keys, bias=bias)
        self.k = nn.Linear(d_model, keys, bias=bias)
        self.v = nn.Linear(d_model, values, bias=bias)
        self.ogate_preact = nn.Linear(d_model, values, bias=bias)
        self.igate_preact = Gate(d_model, n_heads)
        self.fgate_preact = Gate(d_model, n_heads)
        self.multihead_norm = HeadwiseLayerNorm(values, norm_eps)
        self.out_proj = nn.Linear(values, d_model, bias=bias)
        with torch.no_grad():
            # Published: nearly closed to begin with; memories of different lengths.
            self.igate_preact.bias.fill_(-10.0)
            self.fgate_preact.bias.copy_(torch.linspace(3.0, 6.0, n_heads))

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MLSTMState:
        """See :meth:`SequenceMixer.init_state`."""
        weight = self.q.weight
        wide = torch.float64 if (dtype or weight.dtype) == torch.float64 else torch.float32
        widths = self.q.out_features // self.n_heads, self.v.out_features // self.n_heads
        return empty_state(batch_size, self.n_heads, *widths, wide, torch.device(device or weight.device))

    def step(self, x_t: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
        """See :meth:`SequenceMixer.step`; constant time and memory."""
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)) for part in (self.q(x_t), self.k(x_t), self.v(x_t)))
        with torch.autocast(x_t.device.type, enabled=False):
            h, state = mlstm_step(q, k, v, *self._gates(x_t), state, self.eps)
        return self._project(h, x_t), state

    def mix(self, x: Tensor, state: MLSTMState | None) -> tuple[Tensor, MLSTMState]:
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in (self.q(x), self.k(x), self.v(x)))
        with torch.autocast(x.device.type, enabled=False):
            i, f = (gate.transpose(1, 2) for gate in self._gates(x))
            h, after = mlstm(q, k, v, i, f, state, self.chunk, self.eps)
        return self._project(h.transpose(1, 2), x), after

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input and forget gate before their exponential, (…, heads), in float32 at least: they decide over decay."""
        i, f = self.igate_preact(x), self.fgate_preact(x)
        cap = self.gate_soft_cap
        return (i, f) if cap is None else (cap * torch.tanh(i / cap), cap * torch.tanh(f / cap))

    def _project(self, h: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            h = self.multihead_norm(h)
        return self.out_proj(torch.sigmoid(self.ogate_preact(x)) * h.to(x.dtype))


class Gate(nn.Module):
    """A linear map whose bias a backbone's initialisation leaves alone, in float32 at least."""

    def __init__(self, d_model: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(outputs, d_model))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(…, d_model) to (…, outputs)."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(float32_at_least(x), float32_at_least(self.weight), float32_at_least(self.bias))
