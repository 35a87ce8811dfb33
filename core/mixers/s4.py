"""S4, the structured state space layer with a low-rank correction (Gu et al. 2022, arXiv:2111.00396)."""

from __future__ import annotations

from typing import Literal

from ..state_spaces import DPLRKernel
from ..state_spaces.parameters import LearningRates
from .base import register_mixer
from .state_space_convolution import StateSpaceMixer


@register_mixer("s4")
class S4(StateSpaceMixer):
    """S4 (DPLR) with the parameter names of the published code (version 4)::

        y = kernel * x + D x          out = glu(output_linear(dropout(gelu(y))))

    Parameters: ``layer.D`` (channels, d_model), ``layer.kernel.{inv_dt, A_real, A_imag, B, C, P, l_kernel}`` (see
    :class:`longscan.core.state_spaces.DPLRKernel`; C has twice as many channels when bidirectional) and
    ``output_linear.0.{weight, bias}`` (2 · d_model, channels · d_model). A step costs O(d_state) per channel.

    Kernels grow on demand, which rewrites ``layer.kernel.C`` in place (as published): call
    :func:`longscan.core.state_spaces.set_kernel_length` first where parameters must not change, as under
    ``torch.compile``. Where several processes train, growth is an error; the training verbs then set the length of the
    longest sample beforehand.

    Args:
        d_model: width.
        d_state: N, size of the real state of each channel.
        channels: outputs of each system, mixed by output_linear.
        bidirectional: a second kernel, with A and B of the first, runs from the end.
        l_max: cut the kernel off at this length in ``forward``.
        init: ``legs``, ``legt`` (rank 2), ``fout``, ``hippo`` (legs and fout) or a diagonal one with P = 0.
        rank: rows of P.
        n_ssm, dt_min, dt_max, dt_transform, real_transform, imag_transform, B_init, lr:
            see :class:`longscan.core.state_spaces.DiagonalKernel`.
        precision: of the sums behind the kernel, see :class:`longscan.core.state_spaces.DPLRKernel`.
        activation, final_act, dropout, tie_dropout, rate: see :class:`longscan.core.mixers.S4D`.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        channels: int = 1,
        bidirectional: bool = False,
        l_max: int | None = None,
        init: str = "legs",
        rank: int = 1,
        n_ssm: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_transform: str = "exp",
        real_transform: str = "exp",
        imag_transform: str = "none",
        B_init: str = "constant",
        activation: str = "gelu",
        final_act: Literal["glu", "id"] = "glu",
        dropout: float = 0.0,
        tie_dropout: bool = False,
        rate: float = 1.0,
        lr: LearningRates = 1e-3,
        precision: Literal["auto", "float32", "float64"] = "auto",
    ) -> None:
        rows = channels * (2 if bidirectional else 1)
        kernel = DPLRKernel(
            d_model, d_state, rows, rank, init, n_ssm, dt_min, dt_max,
            dt_transform, real_transform, imag_transform, B_init, lr, precision,
        )  # fmt: skip
        super().__init__(
            d_model, kernel, channels, bidirectional, l_max, activation, final_act, dropout, tie_dropout, rate
        )
