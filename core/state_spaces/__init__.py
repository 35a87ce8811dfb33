"""Structured state spaces: HiPPO matrices, their diagonal forms, initialisations, and the kernels of S4's family."""

from __future__ import annotations

from .diagonal_kernel import DiagonalKernel
from .dplr import diagonal_plus_low_rank
from .dplr_kernel import DPLRKernel
from .dss_kernel import DSSKernel
from .hippo import MEASURES, hippo, rank_correction
from .initialization import INITIALIZATIONS, initialize
from .lengths import set_kernel_length

__all__ = [
    "INITIALIZATIONS",
    "MEASURES",
    "DPLRKernel",
    "DSSKernel",
    "DiagonalKernel",
    "diagonal_plus_low_rank",
    "hippo",
    "initialize",
    "rank_correction",
    "set_kernel_length",
]
