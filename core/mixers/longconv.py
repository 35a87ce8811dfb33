"""Long convolutions with directly learned kernels (Fu et al. 2023, arXiv:2302.06646)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..declared_parameters import declare
from ..norms import float32_at_least
from .base import register_mixer
from .convolution import ConvolutionMixer
from .gated_output import GateKind


@register_mixer("longconv")
class LongConv(ConvolutionMixer):
    """Every tap of every channel's kernel is a parameter, squashed and dropped out so that it stays smooth::

        k = dropout(sign(kernel) · max(|kernel| - lam, 0))        out = activation(k * u + D u)

    Sequences may be longer than the kernel, whose reach is ``max_length`` tokens. Bidirectional, the kernel has a
    second half for the lags -1, -2, … Stored: kernel (d_model or 2 d_model, max_length), D.

    Args:
        d_model: width.
        max_length: taps, the length of the longest sequence that the layer sees as a whole.
        lam: the squash; 0.001 to 0.003 in the published recipes.
        kernel_dropout: probability that a tap is dropped in training.
        init: ``"random"`` is N(0, 0.002²); ``"geometric"`` is N(0, 0.02²) exp(-(l / max_length) (d_model / 2)^(h /
            d_model)) for channel h and lag l.
        bidirectional: see above.
        activation, dropout: see :class:`GatedOutput`.
        lr: learning rate of the kernel, which has no weight decay; None is the global one.

    Raises:
        ValueError: for a negative ``lam``, a dropout outside [0, 1) or another ``init``.
    """

    def __init__(
        self,
        d_model: int,
        max_length: int = 1024,
        lam: float = 0.001,
        kernel_dropout: float = 0.2,
        init: Literal["random", "geometric"] = "geometric",
        bidirectional: bool = False,
        activation: GateKind = "glu",
        dropout: float = 0.0,
        lr: float | None = 1e-3,
    ) -> None:
        super().__init__(d_model, max_length, bidirectional, activation, dropout)
        if lam < 0 or not 0 <= kernel_dropout < 1:
            raise ValueError(f"lam is {lam} and kernel_dropout {kernel_dropout}; expected lam ≥ 0 and 0 ≤ p < 1")
        if init not in ("random", "geometric"):
            raise ValueError(f"init is {init!r}; expected 'random' or 'geometric'")
        self.lam, self.kernel_dropout = lam, kernel_dropout
        directions = 2 if bidirectional else 1
        kernel = torch.randn(directions, d_model, max_length)
        if init == "random":
            kernel *= 0.002
        else:
            rates = max(1.0, d_model // 2) ** (torch.arange(d_model) / d_model)
            kernel *= 0.02 * torch.exp(-rates[:, None] * torch.arange(max_length) / max_length)
        self.kernel = nn.Parameter(kernel.flatten(0, 1))
        declare(self, "kernel", lr=lr)

    def kernels(self) -> Tensor:
        """The squashed kernels (directions · d_model, max_length), with dropout in training."""
        squashed = F.softshrink(float32_at_least(self.kernel), self.lam)
        return F.dropout(squashed, self.kernel_dropout, self.training)
