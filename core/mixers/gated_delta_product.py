"""Gated DeltaProduct, a linear RNN whose state turns by products of Householder matrices (Siems et al. 2025,
arXiv:2502.10297), as TempoPFN stacks it (arXiv:2510.25502)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..declared_parameters import declare
from ..norms import float32_at_least
from ..ops import short_conv, short_conv_update
from .base import register_mixer
from .delta_product_cell import delta_product, delta_product_step
from .mlstm import common_heads
from .recurrent import RecurrentMixer


class GatedDeltaProductState(NamedTuple):
    """What a layer remembers between two calls."""

    conv: Tensor
    """(batch, d_conv - 1, channels): the last inputs of the short convolution, oldest first."""
    memory: Tensor
    """(batch, heads, key, value), float32 (float64 for float64 layers)."""


@register_mixer("gated_delta_product")
class GatedDeltaProduct(RecurrentMixer):
    """With n = ``n_householder`` steps of the delta rule for each token and head (:mod:`.delta_product_cell`)::

        [q | k_1 … k_n | v_1 … v_n] = silu(conv1d(in_proj(x)))       q, k to unit length
        β = 2 sigmoid(beta_proj(x))       g = -exp(A_log) softplus(decay_proj(x) + dt_bias)
        out = out_proj(norm of each head (delta_product(q, k, v, β, g)) · silu(gate_proj(x)))

    n = 1 is Gated DeltaNet. More steps turn the state further at each token, at n times the cost.

    Args:
        d_model: width.
        n_heads: heads; they divide the widths of keys and values. None: 4, or the next fewer that does.
        head_dim: width of a head's keys; None: d_model / n_heads.
        expand_v: width of values / width of keys.
        n_householder: n.
        d_conv: width of the short causal convolution.
        conv_bias: its bias.
        negative_eigenvalues: β in (0, 2), so that a step can turn the state round; otherwise in (0, 1).
        forget_gate: without it g = 0, and the state only forgets what is overwritten.
        output_gate: without it the norm's output is projected as it is.
        learned_state: start from a learned state instead of an empty one.
        norm_eps: of the norm of each head.
        chunk: tokens computed at once; ``chunk · n`` is best a power of two.

    Raises:
        ValueError: heads that do not divide the width, or a size below 1.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int | None = None,
        head_dim: int | None = None,
        expand_v: float = 1.0,
        n_householder: int = 2,
        d_conv: int = 4,
        conv_bias: bool = False,
        negative_eigenvalues: bool = True,
        forget_gate: bool = True,
        output_gate: bool = True,
        learned_state: bool = False,
        norm_eps: float = 1e-5,
        chunk: int = 32,
    ) -> None:
        super().__init__()
        n_heads = common_heads(d_model) if n_heads is None else n_heads
        if n_heads < 1 or (head_dim is None and d_model % n_heads):
            raise ValueError(f"n_heads is {n_heads}, which does not divide d_model ({d_model}); give head_dim")
        key = d_model // n_heads if head_dim is None else head_dim
        value = int(key * expand_v)
        for name, size in (("n_householder", n_householder), ("d_conv", d_conv), ("chunk", chunk), ("head_dim", key)):
            if size < 1:
                raise ValueError(f"{name} is {size}; expected at least 1")
        if value < 1:
            raise ValueError(f"expand_v is {expand_v}, which leaves no value of keys of width {key}")
        self.n_heads, self.key, self.value, self.n_householder = n_heads, key, value, n_householder
        self.d_conv, self.chunk, self.norm_eps = d_conv, chunk, norm_eps
        self.strength = 2.0 if negative_eigenvalues else 1.0
        self.widths = [n_heads * key, n_heads * n_householder * key, n_heads * n_householder * value]
        channels = sum(self.widths)
        self.in_proj = nn.Linear(d_model, channels, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels, bias=conv_bias)
        self.beta_proj = nn.Linear(d_model, n_heads * n_householder, bias=False)
        self.decay_proj = nn.Linear(d_model, n_heads, bias=False) if forget_gate else None
        if forget_gate:
            # As published: decay rates up to 16 times step sizes of 0.001 to 0.1.
            self.A_log = nn.Parameter(torch.empty(n_heads).uniform_(1.0, 16.0).log())
            dt = torch.exp(torch.empty(n_heads).uniform_(math.log(1e-3), math.log(1e-1)))
            self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
            declare(self, "A_log", "dt_bias")
        self.gate_proj = nn.Linear(d_model, n_heads * value, bias=False) if output_gate else None
        self.head_norm = nn.Parameter(torch.ones(value))
        declare(self, "head_norm")
        self.out_proj = nn.Linear(n_heads * value, d_model, bias=False)
        self.initial = nn.Parameter(torch.randn(n_heads, key, value) / (key * value) ** 0.5) if learned_state else None
        if learned_state:
            declare(self, "initial")

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> GatedDeltaProductState:
        """See :meth:`SequenceMixer.init_state`; differentiable in a learned state."""
        weight = self.in_proj.weight
        device, dtype = torch.device(device or weight.device), dtype or weight.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        conv = torch.zeros(batch_size, self.d_conv - 1, sum(self.widths), device=device, dtype=dtype)
        shape = (batch_size, self.n_heads, self.key, self.value)
        if self.initial is None:
            return GatedDeltaProductState(conv, torch.zeros(shape, device=device, dtype=wide))
        return GatedDeltaProductState(conv, self.initial.to(device, wide).expand(shape))

    def delta_state(self, batch_size: int, like: Tensor, memory: Tensor | None) -> GatedDeltaProductState:
        """Return the empty state with ``memory`` added, that of another layer: how layers are woven (TempoPFN)."""
        state = self.init_state(batch_size, like.device, like.dtype)
        return state if memory is None else state._replace(memory=state.memory + memory)

    def step(self, x_t: Tensor, state: GatedDeltaProductState) -> tuple[Tensor, GatedDeltaProductState]:
        """See :meth:`SequenceMixer.step`; constant time and memory."""
        u = short_conv_update(state.conv, self.in_proj(x_t), self.conv1d.weight.squeeze(1), self.conv1d.bias, "silu")
        with torch.autocast(x_t.device.type, enabled=False):
            beta, g = self._gates(x_t)
            o, memory = delta_product_step(*self._vectors(u), beta, g, state.memory)
        return self._project(o, x_t), GatedDeltaProductState(state.conv, memory)

    def mix(self, x: Tensor, state: GatedDeltaProductState | None) -> tuple[Tensor, GatedDeltaProductState]:
        u = self.in_proj(x)
        if state is None:
            state = self.init_state(len(x), x.device, u.dtype)
        convolved: Any = short_conv(
            u,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            "silu",
            initial_state=state.conv.to(u.dtype),
            return_final_state=True,
        )
        u, conv = convolved
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (part.transpose(1, 2) if part.dim() == 4 else part.movedim(1, 2) for part in self._vectors(u))
            beta, g = self._gates(x)
            o, memory = delta_product(q, k, v, beta.movedim(1, 2), g.movedim(1, 2), state.memory, self.chunk)
        return self._project(o.transpose(1, 2).contiguous(), x), GatedDeltaProductState(conv, memory)

    def _vectors(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split (…, channels) into q (…, heads, key), k (…, heads, n, key), v (…, heads, n, value)."""
        q, k, v = float32_at_least(u).split(self.widths, -1)
        k, v = (part.unflatten(-1, (self.n_heads, self.n_householder, -1)) for part in (k, v))
        return _unit(q.unflatten(-1, (self.n_heads, -1))), _unit(k), v

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return β (…, heads, n) and g (…, heads), in float32 at least: they decide over what is remembered."""
        x = float32_at_least(x)
        beta = self.strength * torch.sigmoid(F.linear(x, self.beta_proj.weight.to(x.dtype)))
        beta = beta.unflatten(-1, (self.n_heads, self.n_householder))
        if self.decay_proj is None:
            return beta, beta.new_zeros(beta.shape[:-1])
        # softplus, whose own backward torch.compile gets wrong for a gradient that is not contiguous.
        rate = -F.logsigmoid(-F.linear(x, self.decay_proj.weight.to(x.dtype)) - self.dt_bias.to(x.dtype))
        return beta, -torch.exp(self.A_log.to(x.dtype)) * rate

    def _project(self, o: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            o = F.rms_norm(o, o.shape[-1:], eps=self.norm_eps) * self.head_norm.to(o.dtype)
        o = o.flatten(-2).to(x.dtype)
        return self.out_proj(o if self.gate_proj is None else o * F.silu(self.gate_proj(x)))


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
