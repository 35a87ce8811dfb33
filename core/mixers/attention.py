"""Multi-head attention: causal or not, over everything or over a sliding window, with grouped queries and RoPE."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..norms import float32_at_least
from ..packing import sequence_index
from .base import SequenceMixer, register_mixer


class AttentionState(NamedTuple):
    """Keys and values of the tokens that can still be attended to."""

    keys: Tensor
    """(batch, capacity, n_kv_heads, head_dim), rotated; with a window a ring buffer of ``window`` slots."""
    values: Tensor
    """(batch, capacity, n_kv_heads, head_dim)."""
    position: int
    """Number of tokens seen; token p sits in slot p mod capacity."""


def rotate(x: Tensor, position: Tensor, theta: float, rotary_dim: int) -> Tensor:
    """Apply rotary position embeddings (Su et al. 2021, arXiv:2104.09864) to the first ``rotary_dim`` features.

    Args:
        x: (batch, length, heads, head_dim).
        position: (length,) or (batch, length) token positions.
        theta: base of the wavelengths.
        rotary_dim: even number of leading features to rotate, as two halves.
    """
    turned, rest = float32_at_least(x[..., :rotary_dim]), x[..., rotary_dim:]
    frequency = theta ** (-torch.arange(0, rotary_dim, 2, device=x.device, dtype=turned.dtype) / rotary_dim)
    angle = (position.to(turned.dtype).unsqueeze(-1) * frequency).unsqueeze(-2)
    cos, sin = angle.cos(), angle.sin()
    a, b = turned.chunk(2, dim=-1)
    return torch.cat([(a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype), rest], dim=-1)


@register_mixer("attention")
class Attention(SequenceMixer):
    """Scaled dot-product attention with the interface of the recurrent mixers.

    With ``window`` w a token attends to the w tokens up to and including itself (causal) or to those less than w
    away (not causal); time and memory are then linear in the length, and the state of ``step`` is a ring buffer of
    w keys and values. Without, the state grows with the tokens seen.

    Args:
        d_model: width.
        n_heads: query heads; by default one for each 64 features of ``d_model``, at least one.
        n_kv_heads: key and value heads, shared by groups of queries; by default ``n_heads``.
        head_dim: by default d_model / n_heads.
        window: size of the sliding window, or ``None`` for full attention.
        causal: whether tokens see only what came before.
        rotary: whether to rotate queries and keys by position.
        rotary_fraction: share of head_dim that is rotated.
        rope_theta: base of the rotary wavelengths.
        bias: biases of the projections.
    """

    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        n_heads: int | None = None,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        window: int | None = None,
        causal: bool = True,
        rotary: bool = True,
        rotary_fraction: float = 1.0,
        rope_theta: float = 10000.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads = n_heads or next(h for h in range(max(1, d_model // 64), 0, -1) if d_model % h == 0)
        self.n_kv_heads = n_kv_heads or self.n_heads
        if head_dim is None and d_model % self.n_heads:
            raise ValueError(f"d_model {d_model} is no multiple of n_heads {self.n_heads}; give head_dim")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is no multiple of n_kv_heads {self.n_kv_heads}")
        if window is not None and window < 1:
            raise ValueError(f"window is {window}; expected at least 1, or None for full attention")
        self.d_model, self.window, self.causal = d_model, window, causal
        self.head_dim = head_dim or d_model // self.n_heads
        self.rotary_dim = 2 * int(self.head_dim * rotary_fraction / 2) if rotary else 0
        self.rope_theta = rope_theta
        self.q_proj = nn.Linear(d_model, self.n_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(d_model, self.n_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(d_model, self.n_kv_heads * self.head_dim, bias=bias)
        self.out_proj = nn.Linear(self.n_heads * self.head_dim, d_model, bias=bias)

    def forward(
        self,
        x: Tensor,
        *,
        state: AttentionState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`; ``reverse`` lets a causal layer see only what comes after.

        Raises:
            ValueError: if ``state`` is combined with ``cu_seqlens`` or ``reverse``.
        """
        if state is not None:
            if cu_seqlens is not None or reverse:
                raise ValueError("state was given with cu_seqlens or reverse; attention carries a state only forward")
            return self.prefill(x, state)[0]
        length = x.shape[1]
        if cu_seqlens is None:
            sequence, position = None, torch.arange(length, device=x.device)
        else:
            sequence, position = sequence_index(cu_seqlens, length)
        # From the other end positions count downwards, so that a token keeps its distance to what came before it.
        q, k, v = self._heads(x, -position if reverse else position)
        if self.window is not None and self.window < length:
            y = self._windowed(q, k, v, sequence, reverse)
        else:
            y = self._full(q, k, v, sequence, reverse)
        return self._merge(y)

    def _heads(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to rotated queries, rotated keys and values, each (…, length, heads, head_dim)."""
        q = self.q_proj(x).unflatten(-1, (self.n_heads, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (self.n_kv_heads, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (self.n_kv_heads, self.head_dim))
        if self.rotary_dim:
            q = rotate(q, position, self.rope_theta, self.rotary_dim)
            k = rotate(k, position, self.rope_theta, self.rotary_dim)
        return q, k, v

    def _merge(self, y: Tensor) -> Tensor:
        """(batch, heads, length, head_dim) to (batch, length, d_model)."""
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """SDPA on (batch, length, heads, head_dim) inputs; returns (batch, heads, length, head_dim)."""
        return F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            is_causal=is_causal,
            enable_gqa=self.n_kv_heads != self.n_heads,
        )

    def _visible(self, query: Tensor, key: Tensor, reverse: bool = False) -> Tensor:
        """Return which key positions (…, keys) each query position (…, queries) sees: (…, queries, keys) bool."""
        distance = query.unsqueeze(-1) - key.unsqueeze(-2)
        if self.causal:
            distance = -distance if reverse else distance
            seen = distance >= 0
            return seen if self.window is None else seen & (distance < self.window)
        return torch.ones_like(distance, dtype=torch.bool) if self.window is None else distance.abs() < self.window

    def _full(self, q: Tensor, k: Tensor, v: Tensor, sequence: Tensor | None, reverse: bool) -> Tensor:
        if sequence is None and not self.causal:
            return self._attend(q, k, v)
        if sequence is None and not reverse:
            return self._attend(q, k, v, is_causal=True)
        position = torch.arange(q.shape[1], device=q.device)
        mask = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool, device=q.device)
        if self.causal:
            mask = position[:, None] <= position if reverse else position[:, None] >= position
        if sequence is not None:
            mask = mask & (sequence[:, None] == sequence)
        return self._attend(q, k, v, mask)

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, sequence: Tensor | None, reverse: bool) -> Tensor:
        """Attention in blocks of ``window`` queries, each against its own and the neighbouring blocks of keys."""
        assert self.window is not None
        batch, length, w = q.shape[0], q.shape[1], self.window
        blocks = -(-length // w)
        pad = blocks * w - length
        neighbours = (-1, 0, 1) if not self.causal else (0, 1) if reverse else (-1, 0)
        position = torch.arange(blocks * w, device=q.device)
        # Padding belongs to sequence -1, which no token does; padded queries see one another, so no row is empty.
        owner = torch.zeros_like(position) if sequence is None else F.pad(sequence, (0, pad))
        owner = torch.where(position < length, owner, -1)

        def gather(x: Tensor, fill: int) -> Tensor:
            """(batch, blocks · w, …) to (batch, blocks, neighbours · w, …), ``fill`` beyond the ends."""
            x = x.unflatten(1, (blocks, w))
            edge = torch.full_like(x[:, :1], fill)
            shifted = {-1: torch.cat([edge, x[:, :-1]], 1), 0: x, 1: torch.cat([x[:, 1:], edge], 1)}
            return torch.cat([shifted[n] for n in neighbours], dim=2)

        q, k, v = (F.pad(part, (0, 0, 0, 0, 0, pad)) for part in (q, k, v))
        key_position, key_owner = gather(position[None], -(4 * w) - length)[0], gather(owner[None], -2)[0]
        mask = self._visible(position.view(blocks, w), key_position, reverse)
        mask = mask & (owner.view(blocks, w, 1) == key_owner.unsqueeze(1))
        y = F.scaled_dot_product_attention(
            q.unflatten(1, (blocks, w)).transpose(2, 3),
            gather(k, 0).transpose(2, 3).repeat_interleave(self.n_heads // self.n_kv_heads, 2),
            gather(v, 0).transpose(2, 3).repeat_interleave(self.n_heads // self.n_kv_heads, 2),
            attn_mask=mask[None, :, None].expand(batch, -1, self.n_heads, -1, -1),
        )
        return y.transpose(1, 2).flatten(2, 3)[:, :, :length]

    def prefill(self, x: Tensor, state: AttentionState | None = None) -> tuple[Tensor, AttentionState]:
        """See :meth:`SequenceMixer.prefill`."""
        if not self.causal:
            raise self._not_causal("prefill")
        if state is None:
            state = self.init_state(x.shape[0], x.device, x.dtype)
        start, length = state.position, x.shape[1]
        q, k, v = self._heads(x, torch.arange(start, start + length, device=x.device))
        kept = start if self.window is None else min(start, self.window - 1)
        past = torch.arange(start - kept, start, device=x.device) % max(1, state.keys.shape[1])
        keys = torch.cat([state.keys[:, past].to(k.dtype), k], dim=1)
        values = torch.cat([state.values[:, past].to(v.dtype), v], dim=1)
        if kept == 0:
            y = self._attend_whole(q, k, v)
        else:
            # Put empty queries before the carried keys, so that one rule of visibility serves queries and keys.
            front = q.new_zeros(q.shape[0], kept, *q.shape[2:])
            y = self._attend_whole(torch.cat([front, q], dim=1), keys, values)[:, :, kept:]
        return self._merge(y), self._store(state, keys, values, start - kept, start + length)

    def _attend_whole(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend over one contiguous stretch of tokens; inputs as from the projections."""
        if self.window is not None and self.window < q.shape[1]:
            return self._windowed(q, k, v, None, False)
        return self._full(q, k, v, None, False)

    def _store(self, state: AttentionState, keys: Tensor, values: Tensor, first: int, end: int) -> AttentionState:
        """Write the keys and values of tokens ``first … end - 1`` into the buffer, the newest over the oldest."""
        state = self._grow(state, end)
        capacity = state.keys.shape[1]
        count = min(capacity, end - first)
        slots = torch.arange(end - count, end, device=keys.device) % capacity
        new_keys, new_values = state.keys.clone(), state.values.clone()
        new_keys[:, slots] = keys[:, keys.shape[1] - count :].to(new_keys.dtype)
        new_values[:, slots] = values[:, values.shape[1] - count :].to(new_values.dtype)
        return AttentionState(new_keys, new_values, end)

    def _grow(self, state: AttentionState, needed: int) -> AttentionState:
        """Without a window, double the buffer when it is full; with one its size is fixed."""
        capacity = state.keys.shape[1]
        if self.window is not None or needed <= capacity:
            return state
        extra = max(64, 2 * capacity, needed) - capacity
        return AttentionState(
            F.pad(state.keys, (0, 0, 0, 0, 0, extra)), F.pad(state.values, (0, 0, 0, 0, 0, extra)), state.position
        )

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> AttentionState:
        """See :meth:`SequenceMixer.init_state`."""
        if not self.causal:
            raise self._not_causal("init_state")
        weight = self.q_proj.weight
        shape = (batch_size, self.window or 0, self.n_kv_heads, self.head_dim)
        empty = torch.zeros(shape, device=device or weight.device, dtype=dtype or weight.dtype)
        return self._grow(AttentionState(empty, empty.clone(), 0), 1)

    def step(self, x_t: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """See :meth:`SequenceMixer.step`."""
        if not self.causal:
            raise self._not_causal("step")
        t = state.position
        q, k, v = self._heads(x_t.unsqueeze(1), torch.full((1,), t, device=x_t.device))
        state = self._grow(state, t + 1)
        slot, seen = t % state.keys.shape[1], min(t + 1, state.keys.shape[1])
        state.keys[:, slot], state.values[:, slot] = k[:, 0], v[:, 0]
        y = self._attend(q, state.keys[:, :seen].to(q.dtype), state.values[:, :seen].to(q.dtype))
        return self._merge(y).squeeze(1), state._replace(position=t + 1)
