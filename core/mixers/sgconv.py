"""SGConv: a global kernel made of few parameters at many scales, which decays (Li et al. 2022, arXiv:2210.09298)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..declared_parameters import declare
from ..norms import float32_at_least
from .base import register_mixer
from .convolution import ConvolutionMixer
from .gated_output import GateKind


@register_mixer("sgconv")
class SGConv(ConvolutionMixer):
    """Sub-kernels of ``kernel_dim`` parameters, stretched to longer and longer spans and weighted less and less::

        span i = 0, 1, 2, …: linear interpolation of w_i to max(1, 2^(i - 1)) kernel_dim taps, times decay^-i
        k = (spans end to end, cut to max_length) / Z        out = activation(k * u + D u)

    The parameters grow with the logarithm of the length. Z makes the norm of every channel's initial kernel 1; it is
    kept in the buffer ``kernel_norm`` and not trained. Sequences may be longer than the kernel, whose reach is
    ``max_length``. Stored: weight (scales, d_model or 2 d_model, kernel_dim), D.

    Args:
        d_model: width.
        max_length: taps of the kernel.
        kernel_dim: parameters of one span.
        decay: the factor between neighbouring spans; 2 in the paper.
        bidirectional: a second set of spans for the lags -1, -2, …
        activation, dropout: see :class:`GatedOutput`.
        lr: learning rate of the spans, which have no weight decay; None is the global one.

    Raises:
        ValueError: for ``kernel_dim`` below 1 or ``decay`` below 1.
    """

    kernel_norm: Tensor

    def __init__(
        self,
        d_model: int,
        max_length: int = 1024,
        kernel_dim: int = 32,
        decay: float = 2.0,
        bidirectional: bool = False,
        activation: GateKind = "glu",
        dropout: float = 0.0,
        lr: float | None = 1e-3,
    ) -> None:
        super().__init__(d_model, max_length, bidirectional, activation, dropout)
        if kernel_dim < 1 or decay < 1:
            raise ValueError(f"kernel_dim is {kernel_dim} and decay {decay}; expected at least 1")
        self.kernel_dim, self.decay = kernel_dim, decay
        # Spans of 1, 1, 2, 4, … times kernel_dim: n of them reach 2^(n - 1) kernel_dim taps.
        scales = 1 + (-(-max_length // kernel_dim) - 1).bit_length()
        self.weight = nn.Parameter(torch.randn(scales, d_model * (2 if bidirectional else 1), kernel_dim))
        declare(self, "weight", lr=lr)
        with torch.no_grad():
            norm = self._joined().norm(dim=-1, keepdim=True)
        self.register_buffer("kernel_norm", norm)

    def kernels(self) -> Tensor:
        """(directions · d_model, max_length)."""
        return self._joined() / float32_at_least(self.kernel_norm)

    def _joined(self) -> Tensor:
        spans = []
        for i, weight in enumerate(float32_at_least(self.weight)):
            taps = max(1, 2 ** (i - 1)) * self.kernel_dim
            spans.append(F.interpolate(weight[None], size=taps, mode="linear")[0] * self.decay**-i)
        return torch.cat(spans, dim=-1)[:, : self.max_length]
