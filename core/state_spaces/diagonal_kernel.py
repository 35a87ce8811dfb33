"""The diagonal state space kernel of S4D (Gu et al. 2022, arXiv:2206.11893)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..ops import vandermonde, vandermonde_moments
from .parameters import LearningRates, StateSpaceParameters
from .recurrence import Recurrence


class DiagonalKernel(StateSpaceParameters):
    """``K[c, h, l] = 2 Re sum_n C Bbar Abar^l``, discretised by zero-order hold or the bilinear rule.

    With x = dt A: Abar = exp(x) and Bbar = (exp(x) - 1) / A · B (``"zoh"``), or Abar = (1 + x/2) / (1 - x/2) and
    Bbar = dt / (1 - x/2) · B (``"bilinear"``). Everything that depends on the parameters alone is float64, since
    powers up to the length are taken of it.

    Args:
        d_model: H, independent systems.
        d_state: N, size of the real state; N / 2 complex ones are kept.
        channels: rows of C.
        disc: ``"zoh"`` or ``"bilinear"``.
        init, B_init: of :func:`longscan.core.state_spaces.initialize`.
        n_ssm: S, independent sets of A and B; ``None`` is H. 1 ties all.
        dt_min, dt_max: range of the step sizes at the start, log-uniform.
        dt_tie: one step size per channel rather than one per state.
        dt_transform, real_transform, imag_transform: ``exp``, ``softplus``, ``relu``, ``sigmoid`` or ``none``.
        bandlimit: drop modes above this fraction of the sampling rate (0.5 is usual for S4ND), whatever the rate.
        lr: learning rates of ``dt``, ``A`` and ``B``, or one for all.

    Parameters are those of :class:`StateSpaceParameters`.

    Raises:
        UserError: for an option that is not known.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        channels: int = 1,
        disc: Literal["zoh", "bilinear"] = "zoh",
        init: str = "diag-lin",
        n_ssm: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_tie: bool = True,
        dt_transform: str = "exp",
        real_transform: str = "exp",
        imag_transform: str = "none",
        B_init: str = "constant",
        bandlimit: float | None = None,
        lr: LearningRates = 1e-3,
    ) -> None:
        super().__init__(
            d_model, d_state, channels, n_ssm, init, 0, B_init,
            dt_min, dt_max, dt_tie, dt_transform, real_transform, imag_transform, lr,
        )  # fmt: skip
        if disc not in ("zoh", "bilinear"):
            raise UserError(f"disc is {disc!r}; expected 'zoh' or 'bilinear'")
        self.disc, self.bandlimit = disc, bandlimit

    def discretise(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Return log Abar (H, n), Bbar (H, n) and C (channels, H, n), complex128."""
        dt = self.dt(rate)
        A, B, C = self.matrices()
        if self.bandlimit is not None:
            frequencies = dt / rate * A.imag.abs() / (2 * math.pi)
            C = C * (frequencies < self.bandlimit / 2)
        x = dt * A
        if self.disc == "zoh":
            return x, B * torch.expm1(x) / A, C
        numerator, denominator = 1 + x / 2, 1 - x / 2
        # At x = -2 the mode dies at once; its logarithm must stay finite.
        numerator = torch.where(numerator == 0, numerator.new_full((), 1e-200), numerator)
        return torch.log(numerator / denominator), B * dt / denominator, C

    def forward(self, length: int, rate: float = 1.0) -> Tensor:
        """Return the kernels (channels, d_model, length) in float32, or float64 for float64 parameters."""
        log_factor, B, C = self.discretise(rate)
        return vandermonde((C * B).to(self.complex_dtype), log_factor, length)

    def response(self, state: Tensor, length: int, rate: float = 1.0) -> Tensor:
        """Outputs of a state (batch, d_model, n) without input: (batch, channels, d_model, length)."""
        log_factor, _, C = self.discretise(rate)
        first = C * (torch.exp(log_factor) * state[:, None])
        batch, channels = first.shape[:2]
        flat = vandermonde(first.flatten(0, 1).to(self.complex_dtype), log_factor, length)
        return flat.unflatten(0, (batch, channels))

    def final_state(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """State (batch, d_model, n) after the inputs u (batch, length, d_model) from ``state``."""
        log_factor, B, _ = self.discretise(rate)
        after = B * vandermonde_moments(u.flip(1).transpose(1, 2).to(self.dtype), log_factor)
        if state is not None:
            after = after + torch.exp(u.shape[1] * log_factor) * state
        return after.to(self.complex_dtype)

    def recurrence(self, rate: float = 1.0) -> Recurrence:
        """The discretised system, for steps."""
        log_factor, B, C = self.discretise(rate)
        nothing = B.new_zeros(0, *B.shape)
        return Recurrence(torch.exp(log_factor), B, C, nothing, nothing)
