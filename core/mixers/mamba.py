"""Mamba-1, the selective state space layer (Gu and Dao 2023, arXiv:2312.00752, section 3.4)."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..norms import float32_at_least
from ..ops import selective_scan, selective_state_update, short_conv, short_conv_update
from .base import SequenceMixer, register_mixer
from .fused_projections import project_beside, project_in_halves


class MambaState(NamedTuple):
    """What Mamba carries between tokens."""

    conv: Tensor
    """(batch, d_conv - 1, d_inner): the last inputs of the short convolution, oldest first."""
    ssm: Tensor
    """(batch, d_inner, d_state), float32."""


@register_mixer("mamba")
class Mamba(SequenceMixer):
    """Mamba-1 with the parameter names of the published checkpoints.

    With E = expand · d_model, R = dt_rank, N = d_state::

        [u | z] = in_proj(x)                        u = silu(conv1d(u))
        [d | B | C] = x_proj(u)                     dt = softplus(dt_proj(d))
        s_t = exp(dt_t A) s_{t-1} + dt_t B_t u_t    y_t = C_t · s_t + D u_t        A = -exp(A_log)
        out = out_proj(y · silu(z))

    Args:
        d_model: width of the input and output.
        d_state: N, the size of the state of each channel.
        d_conv: width of the short causal convolution.
        expand: E / d_model.
        dt_rank: R; ``"auto"`` is ceil(d_model / 16).
        dt_min, dt_max, dt_init_floor: range (and floor) of the step sizes at initialisation, log-uniform.
        dt_init: ``"random"`` or ``"constant"`` weights of dt_proj, scaled by ``dt_scale`` / sqrt(R).
        conv_bias, bias: biases of the convolution and of in_proj / out_proj.
    """

    causal = True
    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int | float = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if dt_init not in ("random", "constant"):
            raise ValueError(f"dt_init is {dt_init!r}; expected 'random' or 'constant'")
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, bias=conv_bias)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        self._dt_init = (dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        self.reset_dt()

    def reset_dt(self) -> None:
        """Draw dt_proj so that softplus(bias) is log-uniform in [dt_min, dt_max], floored at dt_init_floor."""
        dt_min, dt_max, kind, scale, floor = self._dt_init
        bound = self.dt_rank**-0.5 * scale
        if kind == "constant":
            nn.init.constant_(self.dt_proj.weight, bound)
        else:
            nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        dt = torch.exp(torch.rand(self.d_inner) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))
        dt = dt.clamp(min=floor)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def forward(
        self,
        x: Tensor,
        *,
        state: MambaState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`."""
        u, z = project_in_halves(x, self.in_proj)
        y, _ = self._mix(u, z, state=state, cu_seqlens=cu_seqlens, reverse=reverse)
        return self.out_proj(y)

    def prefill(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """See :meth:`SequenceMixer.prefill`."""
        y, after = self.mix(self.in_proj(x), state=state, return_state=True)
        assert after is not None
        return self.out_proj(y), after

    def mix(
        self,
        xz: Tensor,
        *,
        state: MambaState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
        return_state: bool = False,
    ) -> tuple[Tensor, MambaState | None]:
        """Everything between the two projections: (batch, length, 2 · d_inner) to (batch, length, d_inner)."""
        u, z = xz.chunk(2, dim=-1)
        return self._mix(u, z, state=state, cu_seqlens=cu_seqlens, reverse=reverse, return_state=return_state)

    def _mix(
        self,
        u: Tensor,
        z: Tensor,
        *,
        state: MambaState | None,
        cu_seqlens: Tensor | None,
        reverse: bool,
        return_state: bool = False,
    ) -> tuple[Tensor, MambaState | None]:
        convolved: Any = short_conv(
            u,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            "silu",
            initial_state=None if state is None else state.conv,
            return_final_state=return_state,
            cu_seqlens=cu_seqlens,
            reverse=reverse,
        )
        u, projected = project_beside(convolved[0] if return_state else convolved, self.x_proj)
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        scanned: Any = selective_scan(
            u,
            self._low_rank_dt(dt),
            -torch.exp(float32_at_least(self.A_log)),
            B,
            C,
            float32_at_least(self.D),
            z,
            float32_at_least(self.dt_proj.bias),
            delta_softplus=True,
            initial_state=None if state is None else state.ssm,
            return_final_state=return_state,
            cu_seqlens=cu_seqlens,
            reverse=reverse,
        )
        if not return_state:
            return scanned, None
        return scanned[0], MambaState(convolved[1], scanned[1])

    def _low_rank_dt(self, dt: Tensor) -> Tensor:
        """Apply dt_proj without its bias, which the scan adds in float32, as all that follows it."""
        return F.linear(dt, self.dt_proj.weight)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MambaState:
        """See :meth:`SequenceMixer.init_state`."""
        weight = self.in_proj.weight
        device, dtype = device or weight.device, dtype or weight.dtype
        return MambaState(
            torch.zeros(batch_size, self.d_conv - 1, self.d_inner, device=device, dtype=dtype),
            torch.zeros(
                batch_size,
                self.d_inner,
                self.d_state,
                device=device,
                dtype=torch.float64 if dtype == torch.float64 else torch.float32,
            ),
        )

    def step(self, x_t: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """See :meth:`SequenceMixer.step`; the state is updated in place."""
        u, z = self.in_proj(x_t).chunk(2, dim=-1)
        u = short_conv_update(state.conv, u, self.conv1d.weight.squeeze(1), self.conv1d.bias, "silu")
        dt, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y = selective_state_update(
            state.ssm,
            u,
            self._low_rank_dt(dt),
            -torch.exp(float32_at_least(self.A_log)),
            B,
            C,
            float32_at_least(self.D),
            z,
            float32_at_least(self.dt_proj.bias),
            delta_softplus=True,
        )
        return self.out_proj(y), state
