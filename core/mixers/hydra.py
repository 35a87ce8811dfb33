"""Hydra, the quasiseparable mixer of both directions (Hwang, Lahoti, Dao and Gu 2024, arXiv:2407.09941)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..declared_parameters import FullPrecision, declare
from ..norms import float32_at_least
from ..ops import residual_norm
from ..packing import repack, unpack
from .base import SequenceMixer, State, register_mixer
from .scalar_decay import read_before


class GatedRMSNorm(nn.Module):
    """``w · rms(y) · silu(z)``: the norm before the gate."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """(…, dim) each, to the shape and dtype of z; computed in float32 at least."""
        out = residual_norm(y, self.weight, gate=z, eps=self.eps, norm_before_gate=True, dtype=z.dtype)
        assert isinstance(out, Tensor)  # the sum was not asked for
        return out


@register_mixer("hydra")
class Hydra(FullPrecision, SequenceMixer):
    """A matrix mixer: below and above the diagonal a state space each, the diagonal free.

    With E = expand · d_model, H heads of P channels, G groups, N = d_state, k over both directions::

        [z | x | B→ C→ B← C← | dt→ dt←] = in_proj(input)      widths E, E, 4 G N, 2 H
        [x | B C …] = silu(conv1d([x | B C …]))                centred, not causal
        dt_k = softplus(dt_k + dt_bias)                        A = -exp(A_log), both shared by the directions
        y_i = s→_{i-1} + s←_{i+1} + x_i (fc_D(x_i) + D)        s_k: scan with factors exp(dt_k A), read by C_k
        out = out_proj(norm(y) · silu(z))

    Both scans are one call, the reversed sequence beside the sequence in the batch. Parameter names are the published
    ones.

    Args:
        d_model: width of the input and output.
        d_state: N.
        d_conv: width of the short convolution, odd.
        expand: E / d_model.
        headdim: P; by default 64, or the largest common divisor of it and E.
        ngroups: G, sets of B and C.
        dt_min, dt_max, dt_init_floor: range (and floor) of the step sizes at initialisation, log-uniform.
        dt_limit: the step sizes are clamped to it.
        learnable_init_states: learn the state from which both directions start, ``init_states`` (H, P, N).
        tie_directions: one B and one C for both directions, as in the paper's study of matrix mixers.
        bias, conv_bias: biases of the projections and of the convolution.

    Raises:
        ValueError: for sizes that do not divide each other, or an even ``d_conv``.
    """

    causal = False
    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 7,
        expand: float = 2,
        headdim: int | None = None,
        ngroups: int = 1,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        learnable_init_states: bool = False,
        tie_directions: bool = False,
        bias: bool = False,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.d_inner = int(expand * d_model)
        self.headdim = headdim or math.gcd(64, self.d_inner)
        if self.d_inner % self.headdim:
            raise ValueError(f"headdim {self.headdim} does not divide the inner width {self.d_inner}")
        self.heads = self.d_inner // self.headdim
        if ngroups < 1 or self.heads % ngroups:
            raise ValueError(f"ngroups is {ngroups}; expected a divisor of the {self.heads} heads")
        if d_conv % 2 == 0:
            raise ValueError(f"d_conv is {d_conv}; expected an odd number, the convolution is centred")
        self.d_state, self.groups, self.tie_directions = d_state, ngroups, tie_directions
        self.dt_limit = (float(dt_limit[0]), float(dt_limit[1]))
        mixed = self.d_inner + (2 if tie_directions else 4) * ngroups * d_state
        self.in_proj = nn.Linear(d_model, self.d_inner + mixed + 2 * self.heads, bias=bias)
        self.conv1d = nn.Conv1d(mixed, mixed, d_conv, padding=d_conv // 2, groups=mixed, bias=conv_bias)
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.A_log = nn.Parameter(torch.zeros(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.fc_D = nn.Linear(self.d_inner, self.heads, bias=False)
        self.init_states: nn.Parameter | None = None
        if learnable_init_states:
            self.init_states = nn.Parameter(torch.zeros(self.heads, self.headdim, d_state))
        self.norm = GatedRMSNorm(self.d_inner)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        dt = torch.exp(torch.rand(self.heads) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))
        dt = dt.clamp(min=dt_init_floor)
        with torch.no_grad():
            self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        declare(self, "dt_bias", "A_log", "D", *(("init_states",) if learnable_init_states else ()))

    def forward(
        self, x: Tensor, *, state: State | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """(batch, length, d_model) to the same; packed sequences are spread over a padded batch.

        Raises:
            ValueError: for a state.
        """
        if state is not None:
            raise ValueError("state was given to Hydra, which reads from both ends; pass None")
        z, mixed, dt = self.in_proj(x).split([self.d_inner, self.conv1d.in_channels, 2 * self.heads], dim=-1)
        if cu_seqlens is None:
            y = self._mix(mixed, dt, None, reverse)
        else:
            inside, index = unpack(torch.ones_like(x[..., :1]), cu_seqlens)
            spread, steps = (unpack(value, cu_seqlens)[0] for value in (mixed, dt))
            y = repack(self._mix(spread, steps, inside, reverse), index)
        return self.out_proj(self.norm(y, z))

    def _mix(self, mixed: Tensor, dt: Tensor, inside: Tensor | None, reverse: bool) -> Tensor:
        """Convolution, both scans and the diagonal: (batch, length, …) to (batch, length, E).

        ``inside`` (batch, length, 1) is zero in the padding behind a sequence. ``reverse`` exchanges the directions.
        """
        kernel = self.conv1d.weight.flip(-1) if reverse else self.conv1d.weight
        conv = F.conv1d(
            mixed.transpose(1, 2), kernel, self.conv1d.bias, padding=self.conv1d.padding, groups=mixed.shape[-1]
        )
        mixed = F.silu(conv.transpose(1, 2))
        with torch.autocast(mixed.device.type, enabled=False):
            mixed = float32_at_least(mixed)
            dt = F.softplus(float32_at_least(dt) + float32_at_least(self.dt_bias).repeat(2)).clamp(*self.dt_limit)
            if inside is not None:
                mixed, dt = mixed * inside, dt * inside
            x, matrices = mixed.split([self.d_inner, mixed.shape[-1] - self.d_inner], dim=-1)
            heads = x.unflatten(-1, (self.heads, self.headdim))
            y = self._scan(heads, matrices, dt, reverse)
            diagonal = F.linear(x, float32_at_least(self.fc_D.weight)) + float32_at_least(self.D)
            return (y + heads * diagonal.unsqueeze(-1)).flatten(2)

    def _scan(self, x: Tensor, matrices: Tensor, dt: Tensor, reverse: bool) -> Tensor:
        """Both directions of (batch, length, heads, headdim), as one call of twice the batch."""
        steps = list(dt.chunk(2, dim=-1))
        pairs = [matrices, matrices] if self.tie_directions else list(matrices.chunk(2, dim=-1))
        if reverse:
            steps, pairs = steps[::-1], pairs[::-1]
        step = _both_ways(*steps)
        B, C = (m.unflatten(-1, (self.groups, self.d_state)) for m in _both_ways(*pairs).chunk(2, dim=-1))
        A = -torch.exp(float32_at_least(self.A_log))
        y = read_before(_both_ways(x, x) * step.unsqueeze(-1), step * A, B, C, self.init_states)
        batch = x.shape[0]
        return y[:batch] + y[batch:].flip(1)  # not chunk(2), which a batch of any size cannot be traced through


def _both_ways(forward: Tensor, backward: Tensor) -> Tensor:
    return torch.cat([forward, backward.flip(1)])
