"""The variance schedule of a diffusion model and one step back (Ho et al. 2020, arXiv:2006.11239)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import UserError


class NoiseSchedule:
    """``x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise`` with a linear beta_t, t = 0 … steps - 1.

    Attributes:
        beta: (steps,) variance that step t adds, float64.
        alpha_bar: (steps,) product of 1 - beta up to t.
        sigma: (steps,) standard deviation of the noise in the step back,
            sqrt(beta_t (1 - alpha_bar_(t-1)) / (1 - alpha_bar_t)); sqrt(beta_0) at 0, where none is added.

    Raises:
        UserError: unless 0 < beta_min <= beta_max < 1 and steps >= 1.
    """

    def __init__(self, steps: int, beta_min: float, beta_max: float) -> None:
        if steps < 1:
            raise UserError(f"diffusion_steps is {steps}; expected at least 1")
        if not 0 < beta_min <= beta_max < 1:
            raise UserError(f"beta_min is {beta_min} and beta_max {beta_max}; expected 0 < beta_min <= beta_max < 1")
        with torch.device("cpu"):
            self.beta = torch.linspace(beta_min, beta_max, steps, dtype=torch.float64)
            self.alpha_bar = torch.cumprod(1 - self.beta, dim=0)
            variance = self.beta.clone()
            variance[1:] *= (1 - self.alpha_bar[:-1]) / (1 - self.alpha_bar[1:])
            self.sigma = variance.sqrt()

    def __len__(self) -> int:
        return len(self.beta)

    def add_noise(self, x: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Return x_t of clean samples (batch, …), for a step t of each sample, (batch,) int64."""
        alpha_bar = self.alpha_bar.to(x.device)[steps].view(-1, *[1] * (x.ndim - 1))
        return (alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise).to(x.dtype)

    def reverse(self, x: Tensor, predicted: Tensor, step: int, noise: Tensor | None = None) -> Tensor:
        """Return x_(t-1) from x_t: ``(x - beta / sqrt(1 - alpha_bar) · predicted) / sqrt(1 - beta) + sigma · noise``.

        Args:
            x: samples at ``step``.
            predicted: the noise that the model sees in them.
            step: t.
            noise: of variance 1; ``None`` adds none, as in the last step, t = 0.
        """
        beta, alpha_bar = float(self.beta[step]), float(self.alpha_bar[step])
        x = (x - beta / (1 - alpha_bar) ** 0.5 * predicted) / (1 - beta) ** 0.5
        return x if noise is None else x + float(self.sigma[step]) * noise
