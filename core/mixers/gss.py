"""Gated state spaces (Mehta et al. 2022, arXiv:2206.13947)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..declared_parameters import FullPrecision, declare
from ..norms import float32_at_least
from ..ops import long_conv
from .base import SequenceMixer, register_mixer
from .convolution import on_each_sequence
from .diagonal_system import as_complex, discretize, empty_states
from .exponential_sums import exponential_kernel, exponential_state, power


class GSSState(NamedTuple):
    """What the gated state space carries between tokens."""

    ssm: Tensor
    """(batch, d_inner, d_state), complex64 (complex128 for float64 parameters)."""


@register_mixer("gss")
class GSS(FullPrecision, SequenceMixer):
    """A diagonal state space of few channels and many states, between wide gates::

        v = gelu(v_proj(x))  (d_gate)        u = gelu(u_proj(x))  (d_inner)
        s_t = exp(rate A) s_{t-1} + ((exp(rate A) - 1) / A) u_t        y_t = Re(C s_t) + D u_t
        out = out_proj(context_proj(y) · v)

    with ``A = -exp(A_re) + i exp(A_im)`` random, shared by all channels, the step size 1 and B = 1, both not trained.
    It is the diagonal state space "simplified" of the paper; unlike S4D's, its output is no twice the real part.
    Stored: A_re, A_im (d_state), C (d_inner, d_state, 2), D (d_inner). The real and imaginary part of C start with
    variance 1 / (2 d_state), which keeps the size of y free of the number of states.

    Args:
        d_model: width.
        d_state: complex states of each channel; 512 in the paper.
        gate: d_gate / d_model.
        bottleneck: d_model / d_inner.
        rate: the step size: 2.0 for inputs sampled at half the rate of training. May be set later.
        lr: learning rate of A_re and A_im, which have no weight decay; None is the global one.

    Raises:
        ValueError: for a size or ``rate`` that is not positive.
    """

    causal = True
    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 512,
        gate: int = 4,
        bottleneck: int = 4,
        rate: float = 1.0,
        lr: float | None = 1e-3,
    ) -> None:
        super().__init__()
        if d_state < 1 or gate < 1 or bottleneck < 1 or not rate > 0:
            raise ValueError(
                f"d_state is {d_state}, gate {gate}, bottleneck {bottleneck} and rate {rate}; all must be positive"
            )
        self.d_model, self.d_state, self.rate = d_model, d_state, rate
        self.d_inner, self.d_gate = max(1, d_model // bottleneck), gate * d_model
        self.u_proj = nn.Linear(d_model, self.d_inner)
        self.v_proj = nn.Linear(d_model, self.d_gate)
        self.context_proj = nn.Linear(self.d_inner, self.d_gate)
        self.out_proj = nn.Linear(self.d_gate, d_model)
        self.A_re = nn.Parameter(torch.randn(d_state))
        self.A_im = nn.Parameter(torch.randn(d_state))
        self.C = nn.Parameter(torch.randn(self.d_inner, d_state, 2) / math.sqrt(2 * d_state))
        self.D = nn.Parameter(torch.randn(self.d_inner))
        declare(self, "A_re", "A_im", lr=lr)

    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return exp(rate A) and the factor of u, both (1, d_state), and C (d_inner, d_state), complex."""
        with torch.autocast(self.C.device.type, enabled=False):
            # A state that forgets everything within a step: its factor must keep a finite logarithm.
            real = -float32_at_least(self.A_re).exp().clamp(max=60.0 / self.rate)
            A = torch.complex(real, float32_at_least(self.A_im).exp())
            factors, scales = discretize(A, A.real.new_tensor(self.rate), "zoh")
            return factors[None], scales[None], as_complex(self.C)

    def forward(
        self,
        x: Tensor,
        *,
        state: GSSState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`.

        Raises:
            ValueError: for a state with ``cu_seqlens`` or ``reverse``.
        """
        if state is not None:
            if cu_seqlens is not None or reverse:
                raise ValueError("state was given with cu_seqlens or reverse; GSS carries a state only forward")
            return self.prefill(x, state)[0]
        return self._gate(on_each_sequence(self._input(x), cu_seqlens, lambda u: self._convolve(u, reverse)), x)

    def _input(self, x: Tensor) -> Tensor:
        return float32_at_least(F.gelu(self.u_proj(x)))

    def _gate(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out_proj(self.context_proj(y.to(x.dtype)) * F.gelu(self.v_proj(x)))

    def _convolve(self, u: Tensor, reverse: bool = False) -> Tensor:
        with torch.autocast(u.device.type, enabled=False):
            factors, scales, C = self.system()
            return long_conv(
                u, exponential_kernel(C * scales, factors, u.shape[1]), float32_at_least(self.D), reverse=reverse
            )

    def prefill(self, x: Tensor, state: GSSState | None = None) -> tuple[Tensor, GSSState]:
        """See :meth:`SequenceMixer.prefill`."""
        u = self._input(x)
        y = self._convolve(u)
        with torch.autocast(x.device.type, enabled=False):
            factors, scales, C = self.system()
            after = scales * exponential_state(u, factors)
            if state is not None:
                y = y + exponential_kernel(C * factors * state.ssm, factors, u.shape[1]).transpose(1, 2)
                after = after + power(factors, u.shape[1]) * state.ssm
        return self._gate(y, x), GSSState(after)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> GSSState:
        """See :meth:`SequenceMixer.init_state`."""
        return GSSState(empty_states(batch_size, (self.d_inner, self.d_state), self.C, device, dtype))

    def step(self, x_t: Tensor, state: GSSState) -> tuple[Tensor, GSSState]:
        """See :meth:`SequenceMixer.step`; constant time and memory."""
        factors, scales, C = self.system()
        u = self._input(x_t)
        ssm = factors * state.ssm + scales * u.unsqueeze(-1)
        # The real part of a sum of products, without the imaginary part.
        y = (C.real * ssm.real).sum(-1) - (C.imag * ssm.imag).sum(-1)
        return self._gate(y + float32_at_least(self.D) * u, x_t), GSSState(ssm)
