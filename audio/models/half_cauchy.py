"""The kernel of the published DiffWave where neither its CUDA extension nor pykeops is installed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...core.state_spaces import DPLRKernel


class HalfCauchyKernel(DPLRKernel):
    """S4's kernel with only one of each pair of conjugate states in its Cauchy sums.

    The published code of DiffWave falls back on such a sum on machines without its CUDA extension and pykeops, though
    the other one of each pair belongs to it. Weights compute there, and so also here, what they compute nowhere else;
    this class exists to compare with outputs made that way. There is no recurrence for such a kernel.
    """

    def forward(self, length: int, rate: float = 1.0) -> Tensor:
        """Return the kernels (channels, d_model, length)."""
        size = self._size(length, rate)
        angle = 2 * math.pi / size * torch.arange(size // 2 + 1, device=self.C.device, dtype=torch.float64)
        node = torch.polar(torch.ones_like(angle), -angle)
        half = (1 + node) / 2
        dt = self.dt(rate)
        A, B, C = self.matrices()
        P = self.corrections()
        products = dt * torch.cat([B[None], P])[:, None] * torch.cat([C, P.conj()])[None]
        resolvent = 1 / ((1 - node) - half * (dt * A)[..., None])
        sums = torch.einsum("abhn,hnj->abhj", products, resolvent)
        rank = len(P)
        direct, seen = sums[0].split([self.channels, rank])
        entering, both = sums[1:].split([self.channels, rank], dim=1)
        matrix = torch.eye(rank, device=dt.device) + (half * both).permute(2, 3, 1, 0)
        solved = torch.linalg.solve(matrix, seen.permute(1, 2, 0))
        spectrum = direct - half * torch.einsum("hjs,schj->chj", solved, entering)
        return torch.fft.irfft(spectrum, n=size)[..., :length].to(self.dtype)
