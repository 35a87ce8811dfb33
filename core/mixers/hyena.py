"""The Hyena operator: gated long convolutions with implicit filters (Poli et al. 2023, arXiv:2302.10866)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..norms import float32_at_least
from ..ops import long_conv, short_conv
from ..packing import repack, unpack
from .base import SequenceMixer, register_mixer


class HyenaFilter(nn.Module):
    """The implicit filters of one Hyena layer: an MLP of the position, under an exponential window.

    For positions s = 0 … max_length - 1 with t = s / (max_length - 1), w = 2πs / max_length and frequencies f::

        z = [t, cos(f w), -sin(f w)]
        a = sin(freq · (W z + b)), num_inner_mlps + 1 times          h = W_out a
        k = h · (exp(-t |delta|) + shift)

    The grid belongs to ``max_length``, the length the layer was made for, and not to the length of the input: a
    shorter input takes the first positions of it.
    """

    def __init__(
        self,
        channels: int,
        max_length: int,
        emb_dim: int = 5,
        filter_order: int = 64,
        num_inner_mlps: int = 2,
        activation_freq: float = 10.0,
        train_freq: bool = True,
        shift: float = 0.05,
        fast_decay_pct: float = 0.3,
        slow_decay_pct: float = 1.5,
        decay_target: float = 1e-2,
    ) -> None:
        super().__init__()
        if emb_dim < 3 or emb_dim % 2 == 0:
            raise ValueError(f"emb_dim is {emb_dim}; expected an odd number of at least 3")
        self.channels, self.max_length, self.emb_dim, self.shift = channels, max_length, emb_dim, shift
        self.decay_range = (math.log(decay_target) / slow_decay_pct, math.log(decay_target) / fast_decay_pct)
        widths = [emb_dim] + [filter_order] * (num_inner_mlps + 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.out = nn.Linear(filter_order, channels, bias=False)
        self.freq = nn.Parameter(torch.full((1, filter_order), float(activation_freq)), requires_grad=train_freq)
        self.skip = nn.Parameter(torch.randn(channels))
        for parameter in self.parameters():
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def positions(self, length: int) -> tuple[Tensor, Tensor]:
        """Return z (length, emb_dim) and t (length, 1), the first ``length`` rows of the layer's grid.

        Both are float32, or float64 for float64 parameters: a shorter type could not tell neighbours apart.
        """
        options: dict[str, Any] = {"device": self.freq.device, "dtype": float32_at_least(self.freq).dtype}
        t = torch.linspace(0, 1, self.max_length, **options)[:length, None]
        step = torch.linspace(0, self.max_length - 1, self.max_length, **options)[:length, None]
        bands = (self.emb_dim - 1) // 2
        angle = torch.linspace(1e-4, bands - 1, bands, **options) * (2 * math.pi * step / self.max_length)
        return torch.cat([t, torch.cos(angle), -torch.sin(angle)], dim=-1), t

    def decay_rates(self) -> Tensor:
        """Return delta (channels,), spread evenly from the slow to the fast decay, in the grid's type."""
        dtype = float32_at_least(self.freq).dtype
        return torch.linspace(*self.decay_range, self.channels, device=self.freq.device, dtype=dtype)

    def forward(self, length: int) -> Tensor:
        """Return the kernels (channels, length) in float32, or in float64 for float64 parameters."""
        with torch.autocast(self.freq.device.type, enabled=False):
            a, t = self.positions(length)
            for layer in self.layers:
                assert isinstance(layer, nn.Linear)
                a = F.linear(a, layer.weight.to(a.dtype), layer.bias.to(a.dtype))
                a = torch.sin(self.freq.to(a.dtype) * a)
            window = torch.exp(-t * self.decay_rates().abs()) + self.shift
            return (F.linear(a, self.out.weight.to(a.dtype)) * window).transpose(0, 1)


class HyenaState(NamedTuple):
    """What Hyena carries between tokens: every long convolution's inputs so far, since its filter is as long."""

    conv: Tensor
    """(batch, short_filter_order - 1, (order + 1) · d_model): the last inputs of the short convolution."""
    window: Tensor
    """(order - 1, batch, capacity, d_model): inputs of the long convolutions; the first ``position`` rows count."""
    kernels: Tensor
    """(order - 1, capacity, d_model): the filters, so that a step need not evaluate them."""
    position: int
    """Number of tokens seen."""


@register_mixer("hyena")
class Hyena(SequenceMixer):
    """Hyena of order N: N gates and N - 1 long convolutions with implicit filters.

    ``u = short_filter(in_proj(x))`` is split into [x_0, …, x_{N-1}, v] (the last chunk is the value), then::

        for gate in x_{N-1}, …, x_1:   v = v · gate;   v = k * v + skip · v
        out = out_proj(v · x_0)

    The state of ``step`` is the window of past inputs: memory grows with the tokens seen, up to ``max_length``.

    Args:
        d_model: width.
        max_length: the longest sequence; the filters live on this grid (facts: never re-normalised to the input).
        order: N, 2 in all published models.
        emb_dim, filter_order, num_inner_mlps, activation_freq, train_freq, shift: see :class:`HyenaFilter`.
        short_filter_order: width of the short convolution.
        bias: biases of the two projections.
    """

    causal = True
    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        max_length: int = 1024,
        order: int = 2,
        emb_dim: int = 5,
        filter_order: int = 64,
        num_inner_mlps: int = 2,
        short_filter_order: int = 3,
        activation_freq: float = 10.0,
        train_freq: bool = True,
        shift: float = 0.05,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if order < 2:
            raise ValueError(f"order is {order}; Hyena needs at least 2")
        self.d_model, self.max_length, self.order = d_model, max_length, order
        channels = (order + 1) * d_model
        self.in_proj = nn.Linear(d_model, channels, bias=bias)
        self.short_filter = nn.Conv1d(channels, channels, short_filter_order, groups=channels)
        self.filter = HyenaFilter(
            d_model * (order - 1), max_length, emb_dim, filter_order, num_inner_mlps, activation_freq, train_freq, shift
        )
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)

    def forward(
        self,
        x: Tensor,
        *,
        state: HyenaState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`.

        Raises:
            ValueError: for a sequence longer than ``max_length``, or ``state`` with ``cu_seqlens`` or ``reverse``.
        """
        if state is not None:
            if cu_seqlens is not None or reverse:
                raise ValueError("state was given with cu_seqlens or reverse; Hyena carries a state only forward")
            return self.prefill(x, state)[0]
        if cu_seqlens is not None:
            batch, index = unpack(x, cu_seqlens)
            if not reverse:
                return repack(self.forward(batch), index)
            # A reverse scan starts at each sequence's own end, and zero padding behind it must stay zero inside.
            valid = torch.zeros(batch.shape[:2], dtype=torch.bool, device=x.device).index_put(
                index, torch.ones((), dtype=torch.bool, device=x.device)
            )
            return repack(self._whole(batch, reverse=True, valid=valid), index)
        return self._whole(x, reverse)

    def _whole(self, x: Tensor, reverse: bool, valid: Tensor | None = None) -> Tensor:
        """The layer on complete sequences; ``valid`` (batch, length) marks what is not padding."""
        self._check_length(x.shape[1])
        u = self.in_proj(x)
        if valid is not None:
            u = u * valid.unsqueeze(-1)
        u = short_conv(u, self.short_filter.weight.squeeze(1), self.short_filter.bias, reverse=reverse)
        assert isinstance(u, Tensor)
        *gates, v = u.split(self.d_model, dim=-1)
        if valid is not None:
            v = v * valid.unsqueeze(-1)
        kernels = self.filter(x.shape[1]).split(self.d_model)
        skips = self.filter.skip.split(self.d_model)
        for j, gate in enumerate(reversed(gates[1:])):
            gate_out = gates[0] if j == self.order - 2 else None
            v = long_conv(v, kernels[j], skips[j], gate_in=gate, gate_out=gate_out, reverse=reverse)
        return self.out_proj(v)

    def prefill(self, x: Tensor, state: HyenaState | None = None) -> tuple[Tensor, HyenaState]:
        """See :meth:`SequenceMixer.prefill`."""
        if state is None:
            state = self.init_state(x.shape[0], x.device, x.dtype)
        length, start = x.shape[1], state.position
        state = self._grow(state, start + length)
        u, conv = short_conv(
            self.in_proj(x),
            self.short_filter.weight.squeeze(1),
            self.short_filter.bias,
            initial_state=state.conv,
            return_final_state=True,
        )
        *gates, v = u.split(self.d_model, dim=-1)
        windows = []
        skips = self.filter.skip.split(self.d_model)
        kernels = self.filter(start + length).split(self.d_model)
        for j, gate in enumerate(reversed(gates[1:])):
            v = v * gate
            past = torch.cat([state.window[j, :, :start].to(v.dtype), v], dim=1)
            windows.append(past)
            v = long_conv(past, kernels[j], skips[j])[:, start:]
        window = state.window.clone()
        window[:, :, : start + length] = torch.stack(windows)
        return self.out_proj(v * gates[0]), HyenaState(conv, window, state.kernels, start + length)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> HyenaState:
        """See :meth:`SequenceMixer.init_state`; the window starts small and doubles as it fills."""
        weight = self.in_proj.weight
        device, dtype = device or weight.device, dtype or weight.dtype
        taps = self.short_filter.kernel_size[0] - 1
        empty = HyenaState(
            torch.zeros(batch_size, taps, (self.order + 1) * self.d_model, device=device, dtype=dtype),
            torch.zeros(self.order - 1, batch_size, 0, self.d_model, device=device, dtype=dtype),
            torch.zeros(self.order - 1, 0, self.d_model, device=device),
            0,
        )
        return self._grow(empty, 1)

    def step(self, x_t: Tensor, state: HyenaState) -> tuple[Tensor, HyenaState]:
        """See :meth:`SequenceMixer.step`; costs time in proportion to the tokens seen."""
        state = self._grow(state, state.position + 1)
        t = state.position
        taps = torch.cat([state.conv, self.in_proj(x_t).unsqueeze(1)], dim=1)
        state.conv.copy_(taps[:, 1:])
        u = torch.einsum("bwd,dw->bd", taps, self.short_filter.weight.squeeze(1))
        if self.short_filter.bias is not None:
            u = u + self.short_filter.bias
        *gates, v = u.split(self.d_model, dim=-1)
        skips = self.filter.skip.split(self.d_model)
        for j, gate in enumerate(reversed(gates[1:])):
            v = v * gate
            state.window[j, :, t] = v
            taps_now = state.kernels[j, : t + 1].flip(0)
            v = torch.einsum("btd,td->bd", state.window[j, :, : t + 1].to(taps_now.dtype), taps_now).to(v.dtype) + (
                skips[j] * v
            )
        return self.out_proj(v * gates[0]), state._replace(position=t + 1)

    def _grow(self, state: HyenaState, needed: int) -> HyenaState:
        """Return the state with room for ``needed`` tokens, doubling so that a long generation copies little."""
        capacity = state.window.shape[2]
        if needed <= capacity:
            return state
        self._check_length(needed)
        capacity = min(self.max_length, max(64, 2 * capacity, needed))
        window = F.pad(state.window, (0, 0, 0, capacity - state.window.shape[2]))
        with torch.no_grad():
            kernels = torch.stack(self.filter(capacity).transpose(0, 1).split(self.d_model, dim=-1))
        return state._replace(window=window, kernels=kernels)

    def _check_length(self, length: int) -> None:
        if length > self.max_length:
            raise UserError(
                f"a sequence of {length} tokens is longer than this Hyena layer's filters (max_length "
                f"{self.max_length}); cut it into windows or use a model made for longer sequences"
            )
