"""S4D, the diagonal structured state space layer (Gu et al. 2022, arXiv:2206.11893)."""

from __future__ import annotations

from typing import Literal

from ..state_spaces import DiagonalKernel
from ..state_spaces.parameters import LearningRates
from .base import register_mixer
from .state_space_convolution import StateSpaceMixer


@register_mixer("s4d")
class S4D(StateSpaceMixer):
    """S4D with the parameter names of the published code (version 4)::

        y = kernel * x + D x          out = glu(output_linear(dropout(gelu(y))))

    Parameters: ``layer.D`` (channels, d_model), ``layer.kernel.{inv_dt, A_real, A_imag, B, C}`` (see
    :class:`longscan.core.state_spaces.parameters.StateSpaceParameters`; C has twice as many channels when
    bidirectional) and ``output_linear.0.{weight, bias}`` (2 · d_model, channels · d_model). The state is a
    :class:`longscan.core.mixers.state_space_convolution.StateSpaceState`.

    Args:
        d_model: width.
        d_state: N, size of the real state of each channel.
        channels: outputs of each system, mixed by output_linear.
        bidirectional: a second kernel, with A and B of the first, runs from the end.
        l_max: cut the kernel off at this length in ``forward``.
        disc, init, n_ssm, dt_min, dt_max, dt_tie, dt_transform, real_transform, imag_transform, B_init, bandlimit, lr:
            see :class:`longscan.core.state_spaces.DiagonalKernel`.
        activation: ``gelu``, ``relu``, ``silu``, ``tanh``, ``sigmoid`` or ``none``.
        final_act: ``glu``, or ``id`` for a plain projection of half the size.
        dropout: after the activation.
        tie_dropout: drop whole channels, the same at every position.
        rate: factor on the step sizes, to read other sampling rates.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        channels: int = 1,
        bidirectional: bool = False,
        l_max: int | None = None,
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
        activation: str = "gelu",
        final_act: Literal["glu", "id"] = "glu",
        dropout: float = 0.0,
        tie_dropout: bool = False,
        rate: float = 1.0,
        lr: LearningRates = 1e-3,
    ) -> None:
        rows = channels * (2 if bidirectional else 1)
        kernel = DiagonalKernel(
            d_model, d_state, rows, disc, init, n_ssm, dt_min, dt_max, dt_tie,
            dt_transform, real_transform, imag_transform, B_init, bandlimit, lr,
        )  # fmt: skip
        super().__init__(
            d_model, kernel, channels, bidirectional, l_max, activation, final_act, dropout, tie_dropout, rate
        )
