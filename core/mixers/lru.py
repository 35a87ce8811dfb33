"""The linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..declared_parameters import FullPrecision, declare
from ..norms import float32_at_least
from .base import SequenceMixer, register_mixer
from .diagonal_system import empty_states, run_diagonal_system, step_diagonal_system
from .gated_output import GatedOutput, GateKind


class LRUState(NamedTuple):
    """What the LRU carries between tokens."""

    ssm: Tensor
    """(batch, d_state), complex64 (complex128 for float64 parameters)."""


@register_mixer("lru")
class LRU(FullPrecision, SequenceMixer):
    """The LRU and the gated output of its published block (norm and residual belong to the backbone)::

        lambda = exp(-exp(nu_log) + i exp(theta_log))
        x_t = lambda x_{t-1} + exp(gamma_log) B u_t        y_t = Re(C x_t) + D u_t
        out = activation(y)

    The model has no continuous time, so there is no option to change the sampling rate.

    Args:
        d_model: width.
        d_state: number of complex states.
        r_min, r_max: the ring on which |lambda| starts, uniform in area.
        max_phase: largest phase of lambda at the start, in radians.
        activation: see :class:`GatedOutput`; ``"full_glu"`` is the published block, ``"none"`` the bare recurrence.
        dropout: inside the gated output.
        lr: learning rate of nu_log, theta_log, gamma_log and B, which have no weight decay; None is the global one.

    Raises:
        ValueError: for a ring outside 0 ≤ r_min < r_max ≤ 1, or another activation.
    """

    causal = True
    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        activation: GateKind = "full_glu",
        dropout: float = 0.0,
        lr: float | None = 1e-3,
    ) -> None:
        super().__init__()
        if not 0 <= r_min < r_max <= 1:
            raise ValueError(f"r_min is {r_min} and r_max {r_max}; expected 0 ≤ r_min < r_max ≤ 1")
        if not max_phase > 0:
            raise ValueError(f"max_phase is {max_phase}; expected more than 0")
        self.d_model, self.d_state = d_model, d_state
        # Uniform over (0, 1]: a draw of zero would be a logarithm of zero.
        area, turn = 1 - torch.rand(d_state), 1 - torch.rand(d_state)
        # In float64 and kept off the circle: log of a square that rounds to one would be an infinite nu_log.
        square = (area.double() * (r_max**2 - r_min**2) + r_min**2).clamp(max=1 - 1e-7)
        self.nu_log = nn.Parameter(torch.log(-0.5 * torch.log(square)).float())
        self.theta_log = nn.Parameter(torch.log(max_phase * turn))
        self.gamma_log = nn.Parameter((0.5 * torch.log1p(-square)).float())
        self.B_re = nn.Parameter(torch.randn(d_state, d_model) / math.sqrt(2 * d_model))
        self.B_im = nn.Parameter(torch.randn(d_state, d_model) / math.sqrt(2 * d_model))
        self.C_re = nn.Parameter(torch.randn(d_model, d_state) / math.sqrt(d_state))
        self.C_im = nn.Parameter(torch.randn(d_model, d_state) / math.sqrt(d_state))
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = GatedOutput(d_model, activation, dropout, approximate=True)
        declare(self, "nu_log", "theta_log", "gamma_log", "B_re", "B_im", lr=lr)

    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return lambda (d_state), exp(gamma_log) B (d_state, d_model) and C (d_model, d_state), complex."""
        with torch.autocast(self.nu_log.device.type, enabled=False):
            nu, theta = float32_at_least(self.nu_log).exp(), float32_at_least(self.theta_log).exp()
            B = torch.complex(float32_at_least(self.B_re), float32_at_least(self.B_im))
            C = torch.complex(float32_at_least(self.C_re), float32_at_least(self.C_im))
            gamma = float32_at_least(self.gamma_log).exp()
            return torch.polar(torch.exp(-nu), theta), gamma[:, None] * B, C

    def forward(
        self,
        x: Tensor,
        *,
        state: LRUState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`; with ``cu_seqlens`` the state is (sequences, d_state)."""
        return self._mix(x, state, cu_seqlens, reverse)[0]

    def prefill(self, x: Tensor, state: LRUState | None = None) -> tuple[Tensor, LRUState]:
        """See :meth:`SequenceMixer.prefill`."""
        return self._mix(x, state)

    def _mix(
        self, x: Tensor, state: LRUState | None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, LRUState]:
        initial = None if state is None else state.ssm
        y, after = run_diagonal_system(x, *self.system(), initial_state=initial, cu_seqlens=cu_seqlens, reverse=reverse)
        return self._output(y, x), LRUState(after)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.output((y + float32_at_least(self.D) * x).to(x.dtype))

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> LRUState:
        """See :meth:`SequenceMixer.init_state`."""
        return LRUState(empty_states(batch_size, (self.d_state,), self.nu_log, device, dtype))

    def step(self, x_t: Tensor, state: LRUState) -> tuple[Tensor, LRUState]:
        """See :meth:`SequenceMixer.step`; constant time and memory."""
        y, after = step_diagonal_system(x_t, *self.system(), state.ssm)
        return self._output(y, x_t), LRUState(after)
