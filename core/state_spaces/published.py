"""Names of the weights in other published forms of these layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def from_minimal_s4d(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the single-file S4D of the published code under the names of :class:`S4D`.

    That layer has no B (it is 1), stores the imaginary part of A with its own sign, one step size per channel as
    ``kernel.log_dt`` and its projection as a convolution of width 1.

    Args:
        weights: ``D`` (H), ``kernel.{C, log_dt, log_A_real, A_imag}`` and ``output_linear.0.{weight, bias}``.
    """
    A_real = weights["kernel.log_A_real"]
    B = torch.zeros(1, *A_real.shape, 2, dtype=A_real.dtype, device=A_real.device)
    B[..., 0] = 1
    return {
        "layer.D": weights["D"][None],
        "layer.kernel.inv_dt": weights["kernel.log_dt"][:, None],
        "layer.kernel.A_real": A_real,
        "layer.kernel.A_imag": -weights["kernel.A_imag"],
        "layer.kernel.B": B,
        "layer.kernel.C": weights["kernel.C"][None],
        "output_linear.0.weight": weights["output_linear.0.weight"].squeeze(-1),
        "output_linear.0.bias": weights["output_linear.0.bias"],
    }
