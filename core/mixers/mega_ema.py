"""Mega's multi-dimensional damped moving average (Ma et al. 2023, arXiv:2209.10655, section 3.1)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..declared_parameters import FullPrecision, declare
from ..norms import float32_at_least
from ..ops import long_conv
from .base import SequenceMixer, register_mixer
from .convolution import on_each_sequence
from .exponential_sums import exponential_kernel, exponential_state, power


class MegaEMAState(NamedTuple):
    """What the moving average carries between tokens."""

    ema: Tensor
    """(batch, d_model, ndim), float32 (float64 for float64 parameters)."""


@register_mixer("mega_ema")
class MegaEMA(FullPrecision, SequenceMixer):
    """Each channel is spread over ``ndim`` damped exponential moving averages and read from them::

        p = sigmoid(delta)        q = 1 - p sigmoid(alpha)
        h_t = q h_{t-1} + p beta u_t        out_t = silu(sum_n gamma h_t / sqrt(ndim) + omega u_t)

    in its convolutional form, with the kernel ``sum_n (p beta gamma / sqrt(ndim)) q^l``. Channels do not mix.
    Bidirectional, a second set of averages runs from the end; both include the current token. Stored: delta, alpha
    and beta (directions · d_model, ndim, 1), gamma (directions · d_model, ndim), omega (d_model).

    Args:
        d_model: width.
        ndim: moving averages of each channel, 16 in the published recipes.
        bidirectional: see above.
        activation: ``"silu"``, as inside Mega, or ``"none"``.
        lr: learning rate of delta, alpha and beta, which have no weight decay; None is the global one.

    Raises:
        ValueError: for ``ndim`` below 1 or another activation.
    """

    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        ndim: int = 16,
        bidirectional: bool = False,
        activation: Literal["silu", "none"] = "silu",
        lr: float | None = None,
    ) -> None:
        super().__init__()
        if ndim < 1:
            raise ValueError(f"ndim is {ndim}; expected at least 1")
        if activation not in ("silu", "none"):
            raise ValueError(f"activation is {activation!r}; expected 'silu' or 'none'")
        self.d_model, self.ndim, self.bidirectional, self.activation = d_model, ndim, bidirectional, activation
        self.causal = not bidirectional
        rows = d_model * (2 if bidirectional else 1)
        self.delta = nn.Parameter(0.2 * torch.randn(rows, ndim, 1))
        self.alpha = nn.Parameter(0.2 * torch.randn(rows, ndim, 1))
        # Alternating signs, so that the averages start different from each other.
        signs = 1 - 2 * (torch.arange(ndim) % 2)
        self.beta = nn.Parameter(signs[:, None] + 0.02 * torch.randn(rows, ndim, 1))
        self.gamma = nn.Parameter(torch.randn(rows, ndim))
        self.omega = nn.Parameter(torch.randn(d_model))
        declare(self, "delta", "alpha", "beta", lr=lr)

    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, p · beta and gamma / sqrt(ndim), each (directions · d_model, ndim), in float32 at least."""
        p = torch.sigmoid(float32_at_least(self.delta).squeeze(-1))
        # Where an average forgets everything at once q is zero; its logarithm must stay finite.
        q = (1 - p * torch.sigmoid(float32_at_least(self.alpha).squeeze(-1))).clamp(min=1e-30)
        return q, p * float32_at_least(self.beta).squeeze(-1), float32_at_least(self.gamma) / math.sqrt(self.ndim)

    def kernel(self, length: int) -> Tensor:
        """Return the kernels (directions · d_model, length) in float32 at least."""
        with torch.autocast(self.gamma.device.type, enabled=False):
            q, weight_in, weight_out = self.system()
            return exponential_kernel(weight_in * weight_out, q, length)

    def forward(
        self,
        x: Tensor,
        *,
        state: MegaEMAState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`.

        Raises:
            ValueError: for a state with ``cu_seqlens`` or ``reverse``, or where the layer is bidirectional.
        """
        if state is not None:
            if self.bidirectional:
                raise ValueError("state was given to a bidirectional MegaEMA, which sees the whole sequence; pass None")
            if cu_seqlens is not None or reverse:
                raise ValueError("state was given with cu_seqlens or reverse; MegaEMA carries a state only forward")
            return self.prefill(x, state)[0]
        return self._output(on_each_sequence(float32_at_least(x), cu_seqlens, lambda u: self._convolve(u, reverse)), x)

    def _convolve(self, u: Tensor, reverse: bool) -> Tensor:
        kernel, skip = self.kernel(u.shape[1]), float32_at_least(self.omega)
        if self.bidirectional:
            past, future = kernel.split(self.d_model)
            both = torch.cat([past[:, :1] + future[:, :1], past[:, 1:]], dim=1)
            kernel = torch.cat([future[:, 1:].flip(-1), both], dim=1)
        return long_conv(u, kernel, skip, causal=self.causal, reverse=reverse)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return (F.silu(y) if self.activation == "silu" else y).to(x.dtype)

    def prefill(self, x: Tensor, state: MegaEMAState | None = None) -> tuple[Tensor, MegaEMAState]:
        """See :meth:`SequenceMixer.prefill`."""
        self._check_causal("prefill")
        with torch.autocast(x.device.type, enabled=False):
            u = float32_at_least(x)
            q, weight_in, weight_out = self.system()
            y = long_conv(u, exponential_kernel(weight_in * weight_out, q, u.shape[1]), float32_at_least(self.omega))
            after = weight_in * exponential_state(u, q)
            if state is not None:
                y = y + exponential_kernel(weight_out * q * state.ema, q, u.shape[1]).transpose(1, 2)
                after = after + power(q, u.shape[1]) * state.ema
        return self._output(y, x), MegaEMAState(after)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MegaEMAState:
        """See :meth:`SequenceMixer.init_state`."""
        self._check_causal("init_state")
        kind = torch.float64 if (dtype or self.gamma.dtype) == torch.float64 else torch.float32
        zeros = torch.zeros(batch_size, self.d_model, self.ndim, device=device or self.gamma.device, dtype=kind)
        return MegaEMAState(zeros)

    def step(self, x_t: Tensor, state: MegaEMAState) -> tuple[Tensor, MegaEMAState]:
        """See :meth:`SequenceMixer.step`; constant time and memory."""
        self._check_causal("step")
        q, weight_in, weight_out = self.system()
        u = float32_at_least(x_t)
        ema = q * state.ema + weight_in * u.unsqueeze(-1)
        return self._output((weight_out * ema).sum(-1) + float32_at_least(self.omega) * u, x_t), MegaEMAState(ema)

    def _check_causal(self, method: str) -> None:
        if self.bidirectional:
            raise self._not_causal(method)
