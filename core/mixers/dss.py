"""DSS, the diagonal state space layer with a softmax over positions (Gupta et al. 2022, arXiv:2203.14343)."""

from __future__ import annotations

from typing import Literal

from ..state_spaces import DSSKernel
from ..state_spaces.parameters import LearningRates
from .base import register_mixer
from .state_space_convolution import StateSpaceMixer


@register_mixer("dss")
class DSS(StateSpaceMixer):
    """DSS-softmax in the layer of S4D, with its parameter names (``mixer="s4d"`` is DSS-exp).

    Kernels are normalised over ``l_max`` positions, which makes them independent of the input and gives the layer
    states and steps. With ``l_max=None`` they are normalised over each input, as published: then only ``forward``
    without a state works. Modes of positive real part, which ``real_transform="none"`` allows, need ``forward`` too.

    Args:
        d_model: width.
        d_state: N, size of the real state of each channel.
        channels: outputs of each system, mixed by output_linear.
        bidirectional: a second kernel, with A and B of the first, runs from the end.
        l_max: length of the softmax; longer inputs see a kernel of this length in ``forward``.
        init, n_ssm, dt_min, dt_max, dt_tie, dt_transform, real_transform, imag_transform, B_init, lr:
            see :class:`longscan.core.state_spaces.DiagonalKernel`.
        activation, final_act, dropout, tie_dropout, rate: see :class:`longscan.core.mixers.S4D`.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        channels: int = 1,
        bidirectional: bool = False,
        l_max: int | None = 1024,
        init: str = "diag-legs",
        n_ssm: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_tie: bool = True,
        dt_transform: str = "exp",
        real_transform: str = "none",
        imag_transform: str = "none",
        B_init: str = "constant",
        activation: str = "gelu",
        final_act: Literal["glu", "id"] = "glu",
        dropout: float = 0.0,
        tie_dropout: bool = False,
        rate: float = 1.0,
        lr: LearningRates = 1e-3,
    ) -> None:
        rows = channels * (2 if bidirectional else 1)
        kernel = DSSKernel(
            d_model, d_state, rows, l_max, init, n_ssm, dt_min, dt_max, dt_tie,
            dt_transform, real_transform, imag_transform, B_init, lr,
        )  # fmt: skip
        super().__init__(
            d_model, kernel, channels, bidirectional, l_max, activation, final_act, dropout, tie_dropout, rate
        )
