"""S5: one diagonal state space with many inputs and outputs (Smith et al. 2023, arXiv:2208.04933)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..declared_parameters import FullPrecision, declare
from ..norms import float32_at_least
from .base import SequenceMixer, register_mixer
from .diagonal_system import (
    Discretization,
    as_complex,
    discretize,
    empty_states,
    run_diagonal_system,
    step_diagonal_system,
)
from .gated_output import GatedOutput, GateKind
from .s5_initialization import block_diagonal_hippo, initial_B, initial_C


class S5State(NamedTuple):
    """What S5 carries between tokens."""

    ssm: Tensor
    """(batch, stored states), complex64 (complex128 for float64 parameters)."""


@register_mixer("s5")
class S5(FullPrecision, SequenceMixer):
    """S5 and the gated output of its published layer (norm and residual belong to the backbone)::

        Lambda_bar, B_bar = discretize(Lambda, rate · exp(log_step)) per state
        x_t = Lambda_bar x_{t-1} + B_bar u_t        y_t = 2 Re(C x_t) + D u_t
        out = activation(y)

    With conjugate symmetry half of the states are stored and the 2 stands for the others; without it all are and the
    factor is 1. Bidirectional, the same Lambda and B run from both ends, C reads both (both include the current
    token), and there is no ``step``. Stored: Lambda_re, Lambda_im, log_step (P, 1), B (P, d_model, 2),
    C (d_model, P, 2) or (d_model, 2 P, 2) bidirectional, D.

    Args:
        d_model: width.
        d_state: the state size, conjugates included; P is half of it with conjugate symmetry.
        blocks: blocks of HiPPO-N along the diagonal of the initial state matrix.
        conjugate_symmetry: store one of each pair of conjugate states.
        discretization: ``"zoh"`` or ``"bilinear"``.
        bidirectional: see above.
        C_init: ``"trunc_standard_normal"``, ``"lecun_normal"`` or ``"complex_normal"``; see :func:`initial_C`.
        clip_eigs: hold the real parts of Lambda at or below -1e-4, which keeps the recurrence stable.
        dt_min, dt_max: range of the step sizes at initialisation, log-uniform.
        rate: multiplies the step size: 2.0 for inputs sampled at half the rate of training. May be set later.
        activation: see :class:`GatedOutput`; ``"none"`` is the bare state space.
        dropout: inside the gated output.
        lr: learning rate of Lambda, log_step and B, which have no weight decay; None is the global one.

    Raises:
        ValueError: for a state size that the blocks do not divide, or another option.
    """

    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        blocks: int = 1,
        conjugate_symmetry: bool = True,
        discretization: Discretization = "zoh",
        bidirectional: bool = False,
        C_init: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"] = "trunc_standard_normal",
        clip_eigs: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        rate: float = 1.0,
        activation: GateKind = "full_glu",
        dropout: float = 0.0,
        lr: float | None = 1e-3,
    ) -> None:
        super().__init__()
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(f"discretization is {discretization!r}; expected 'zoh' or 'bilinear'")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"dt_min is {dt_min} and dt_max {dt_max}; expected 0 < dt_min ≤ dt_max")
        if not rate > 0:
            raise ValueError(f"rate is {rate}; expected more than 0")
        self.d_model, self.rate, self.discretization = d_model, rate, discretization
        self.conjugate_symmetry, self.bidirectional, self.clip_eigs = conjugate_symmetry, bidirectional, clip_eigs
        self.causal = not bidirectional
        eigenvalues, vectors = block_diagonal_hippo(d_state, blocks, conjugate_symmetry)
        self.stored_states = len(eigenvalues)
        self.Lambda_re = nn.Parameter(eigenvalues.real.float())
        self.Lambda_im = nn.Parameter(eigenvalues.imag.float())
        self.B = nn.Parameter(torch.view_as_real(initial_B(vectors, d_model)).float())
        directions = [initial_C(vectors, d_model, C_init) for _ in range(2 if bidirectional else 1)]
        self.C = nn.Parameter(torch.view_as_real(torch.cat(directions, dim=1)).float())
        self.D = nn.Parameter(torch.randn(d_model))
        low, high = math.log(dt_min), math.log(dt_max)
        self.log_step = nn.Parameter(low + (high - low) * torch.rand(self.stored_states, 1))
        self.output = GatedOutput(d_model, activation, dropout, approximate=True)
        declare(self, "Lambda_re", "Lambda_im", "B", "log_step", lr=lr)

    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return Lambda_bar (P), B_bar (P, d_model) and C (d_model, P or 2 P; the factor 2 included), complex."""
        with torch.autocast(self.B.device.type, enabled=False):
            real = float32_at_least(self.Lambda_re)
            if self.clip_eigs:
                real = real.clamp(max=-1e-4)
            eigenvalues = torch.complex(real, float32_at_least(self.Lambda_im))
            step = self.rate * float32_at_least(self.log_step).squeeze(-1).exp()
            factors, scales = discretize(eigenvalues, step, self.discretization)
            C = as_complex(self.C)
            return factors, scales[:, None] * as_complex(self.B), 2 * C if self.conjugate_symmetry else C

    def forward(
        self,
        x: Tensor,
        *,
        state: S5State | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`; with ``cu_seqlens`` the state is (sequences, P).

        Raises:
            ValueError: for a state where the layer is bidirectional.
        """
        if not self.bidirectional:
            return self._mix(x, state, cu_seqlens, reverse)[0]
        if state is not None:
            raise ValueError("state was given to a bidirectional S5, which sees the whole sequence; pass None")
        factors, B, C = self.system()
        left, right = C.chunk(2, dim=1)
        y, _ = run_diagonal_system(x, factors, B, left, cu_seqlens=cu_seqlens, reverse=reverse)
        y_right, _ = run_diagonal_system(x, factors, B, right, cu_seqlens=cu_seqlens, reverse=not reverse)
        return self._output(y + y_right, x)

    def prefill(self, x: Tensor, state: S5State | None = None) -> tuple[Tensor, S5State]:
        """See :meth:`SequenceMixer.prefill`."""
        self._check_causal("prefill")
        return self._mix(x, state)

    def _mix(
        self, x: Tensor, state: S5State | None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, S5State]:
        initial = None if state is None else state.ssm
        y, after = run_diagonal_system(x, *self.system(), initial_state=initial, cu_seqlens=cu_seqlens, reverse=reverse)
        return self._output(y, x), S5State(after)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.output((y + float32_at_least(self.D) * x).to(x.dtype))

    def _check_causal(self, method: str) -> None:
        if self.bidirectional:
            raise self._not_causal(method)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> S5State:
        """See :meth:`SequenceMixer.init_state`."""
        self._check_causal("init_state")
        return S5State(empty_states(batch_size, (self.stored_states,), self.B, device, dtype))

    def step(self, x_t: Tensor, state: S5State) -> tuple[Tensor, S5State]:
        """See :meth:`SequenceMixer.step`; constant time and memory."""
        self._check_causal("step")
        y, after = step_diagonal_system(x_t, *self.system(), state.ssm)
        return self._output(y, x_t), S5State(after)
