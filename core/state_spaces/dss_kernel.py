"""The kernel of DSS with its softmax over positions (Gupta et al. 2022, arXiv:2203.14343)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from ..ops import vandermonde, vandermonde_moments
from .parameters import LearningRates, StateSpaceParameters
from .recurrence import Recurrence

_EPSILON = 1e-7  # of the complex reciprocal


class DSSKernel(StateSpaceParameters):
    """A diagonal kernel whose modes are normalised to sum to one over ``l_max`` positions.

    With p = dt A, s = -1 where Re A > 0 and else 1, and recip(x) = conj(x) / (x conj(x) + 1e-7)::

        K[c, h, l] = Re sum_n C B (exp(s p) - 1) recip((exp(s p l_max) - 1) A) exp(p (l - (l_max - 1) [Re A > 0]))

    so that growing modes are shifted to end at one. The real part of A is free of sign, and there is no factor 2 for
    conjugates. The kernel depends on the length it is normalised over: that is ``l_max``, or, where it is ``None`` (as
    published), the length asked for, which rules out steps and states. (DSS with exponential real parts, DSS-exp, is
    :class:`longscan.core.state_spaces.DiagonalKernel`.)

    Arguments are those of :class:`longscan.core.state_spaces.DiagonalKernel`, with ``l_max``.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        channels: int = 1,
        l_max: int | None = None,
        init: str = "diag-legs",
        n_ssm: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_tie: bool = True,
        dt_transform: str = "exp",
        real_transform: str = "none",
        imag_transform: str = "none",
        B_init: str = "constant",
        lr: LearningRates = 1e-3,
    ) -> None:
        super().__init__(
            d_model, d_state, channels, n_ssm, init, 0, B_init,
            dt_min, dt_max, dt_tie, dt_transform, real_transform, imag_transform, lr,
        )  # fmt: skip
        if l_max is not None and l_max < 1:
            raise UserError(f"l_max is {l_max}; expected a positive length or None")
        self.l_max = l_max

    def forward(self, length: int, rate: float = 1.0) -> Tensor:
        """Return the kernels (channels, d_model, length) in float32, or float64 for float64 parameters."""
        total = length if self.l_max is None else self._positions(rate)
        p, weights, C = self._normalised(total, rate)
        coefficients = C * weights
        grows = p.real > 0
        if not self._may_grow(p):
            return vandermonde(coefficients.to(self.complex_dtype), p, length)
        if length > total:
            raise UserError(
                f"a kernel of length {length} was asked of a DSS layer with growing modes, which end at l_max={total}; "
                "give a longer l_max or cut the input"
            )
        # Growing modes are powers that decay from the far end.
        zero = torch.zeros_like(coefficients)
        falling = torch.where(grows, zero, coefficients).to(self.complex_dtype)
        rising = torch.where(grows, coefficients, zero).to(self.complex_dtype)
        backward = vandermonde(rising, torch.where(grows, -p, p), total).flip(-1)[..., :length]
        return vandermonde(falling, torch.where(grows, -p, p), length) + backward

    def response(self, state: Tensor, length: int, rate: float = 1.0) -> Tensor:
        """Outputs of a state (batch, d_model, n) without input: (batch, channels, d_model, length)."""
        p, _, C = self._recurrent(rate)
        first = C * (torch.exp(p) * state[:, None])
        flat = vandermonde(first.flatten(0, 1).to(self.complex_dtype), p, length)
        return flat.unflatten(0, first.shape[:2])

    def final_state(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """State (batch, d_model, n) after the inputs u (batch, length, d_model) from ``state``."""
        p, weights, _ = self._recurrent(rate)
        after = weights * vandermonde_moments(u.flip(1).transpose(1, 2).to(self.dtype), p)
        if state is not None:
            after = after + torch.exp(u.shape[1] * p) * state
        return after.to(self.complex_dtype)

    def recurrence(self, rate: float = 1.0) -> Recurrence:
        """The system for steps: every token's input weighs as in the kernel."""
        p, weights, C = self._recurrent(rate)
        nothing = weights.new_zeros(0, *weights.shape)
        return Recurrence(torch.exp(p), weights, C, nothing, nothing)

    def _may_grow(self, p: Tensor) -> bool:
        """Whether a mode grows; a graph being compiled cannot look and must allow for it."""
        return self.real_transform == "none" and (torch.compiler.is_compiling() or bool((p.real > 0).any()))

    def _positions(self, rate: float) -> int:
        """Positions of the softmax at ``rate``: they span the same time."""
        assert self.l_max is not None
        return max(1, round(self.l_max / rate))

    def _normalised(self, total: int, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """p (H, n), the weights of the modes (H, n), halved, and C, with the softmax over ``total`` positions."""
        A, B, C = self.matrices()
        p = self.dt(rate) * A
        decaying = torch.where(A.real > 0, -p, p)
        x = torch.expm1(decaying * total) * A
        reciprocal = x.conj() / (x * x.conj() + _EPSILON)
        return p, B * torch.expm1(decaying) * reciprocal / 2, C

    def _recurrent(self, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        if self.l_max is None:
            raise UserError(
                "a DSS layer without l_max normalises its kernel over each input, so that it has no state; "
                "give l_max, the longest length, to step it"
            )
        p, weights, C = self._normalised(self._positions(rate), rate)
        if not torch.compiler.is_compiling() and self._may_grow(p):
            raise UserError(
                "this DSS layer has modes that grow (positive real parts of A), which only its convolution can run; "
                "use real_transform='exp' for a layer that steps"
            )
        return p, weights, C
