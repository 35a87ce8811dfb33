"""A diagonal state space in continuous time, read at irregular instants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.channel_mixers import MLP
from ...core.declared_parameters import declare
from ...core.mixers.diagonal_system import discretize
from ...core.norms import LayerNorm
from ...core.ops import linear_scan


class ContinuousLayer(nn.Module):
    """S4D (Gu et al. 2022, arXiv:2206.11893) with a step of its own for every token::

        x_t = exp(A Δ_t) x_{t-1} + A⁻¹ (exp(A Δ_t) - 1) u_t        y_t = 2 Re(C x_t) + D u_t

    Δ_t is the time since the token before, in units of the layer's own step size: the input is held over it. One step
    of 2 Δ is two of Δ with the same input, and a step of 0 changes nothing.

    Args:
        d_model: width.
        d_state: size of the real state of each channel.
    """

    def __init__(self, d_model: int, d_state: int = 16) -> None:
        super().__init__()
        half = max(1, d_state // 2)
        self.log_dt = nn.Parameter(torch.rand(d_model) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        self.A_real = nn.Parameter(torch.full((d_model, half), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(half).float().repeat(d_model, 1))
        self.C = nn.Parameter(torch.randn(d_model, half, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(d_model))
        declare(self, "log_dt", "A_real", "A_imag", lr=1e-3)

    def forward(self, u: Tensor, steps: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return y and the last state.

        Args:
            u: (batch, length, d_model).
            steps: (batch, length) times since the token before, 0 or more.
            state: (batch, d_model · d_state / 2), complex; None is 0.
        """
        with torch.autocast(u.device.type, enabled=False):
            A = torch.complex(-self.A_real.exp(), self.A_imag)
            dt = self.log_dt.exp()[:, None] * steps[..., None, None]
            factor, entering = discretize(A, dt, "zoh")
            inputs = (entering * u.float().unsqueeze(-1)).flatten(2)
            x, after = linear_scan(factor.flatten(2), inputs, initial_state=state, return_final_state=True)
            C = torch.view_as_complex(self.C.contiguous())
            y = 2 * (x.unflatten(-1, C.shape) * C).sum(-1).real
            assert after is not None
            return y + self.D * u.float(), after


class ContinuousStack(nn.Module):
    """Pre-norm residual blocks of a continuous layer (with GELU and a gated map) and an MLP, causal in time.

    Args:
        inputs, outputs: channels.
        d_model: width.
        d_state: size of the real state of each channel.
        n_layers: blocks.
        dropout: of what is added.
    """

    def __init__(self, inputs: int, outputs: int, d_model: int, d_state: int, n_layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.embed = nn.Linear(inputs, d_model)
        self.norms = nn.ModuleList(LayerNorm(d_model) for _ in range(2 * n_layers))
        self.layers = nn.ModuleList(ContinuousLayer(d_model, d_state) for _ in range(n_layers))
        self.gates = nn.ModuleList(nn.Linear(d_model, 2 * d_model) for _ in range(n_layers))
        self.mlps = nn.ModuleList(MLP(d_model, 2 * d_model, "gelu") for _ in range(n_layers))
        self.norm = LayerNorm(d_model)
        self.output = nn.Linear(d_model, outputs)

    def forward(self, x: Tensor, steps: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """(batch, length, inputs) and (batch, length) steps to (batch, length, outputs) and the last states."""
        x, after = self.embed(x), []
        for number, layer in enumerate(self.layers):
            y, last = layer(self.norms[2 * number](x), steps, None if state is None else state[number])
            after.append(last)
            x = x + self._drop(F.glu(self.gates[number](F.gelu(y)), dim=-1))
            x = x + self._drop(self.mlps[number](self.norms[2 * number + 1](x)))
        return self.output(self.norm(x)), after

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
