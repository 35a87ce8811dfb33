"""Sequence operators: pure functions on tensors laid out (batch, length, channels).

Every operator picks its implementation by device (``backend=`` and the environment variable LONGSCAN_BACKEND force
one), registers with ``torch.library`` and differentiates in all tensor arguments. Importing this package compiles
nothing and touches no device; the CPU kernels are compiled on their first call and then kept on disk.
"""

from __future__ import annotations

from .cauchy import cauchy
from .linear_scan import linear_scan
from .long_conv import long_conv
from .residual_norm import residual_norm
from .selective_scan import ScanDirection, selective_scan, selective_scan_bidirectional
from .selective_state_update import selective_state_update
from .short_conv import short_conv
from .short_conv_update import short_conv_update
from .vandermonde import vandermonde, vandermonde_moments

__all__ = [
    "ScanDirection",
    "cauchy",
    "linear_scan",
    "long_conv",
    "residual_norm",
    "selective_scan",
    "selective_scan_bidirectional",
    "selective_state_update",
    "short_conv",
    "short_conv_update",
    "vandermonde",
    "vandermonde_moments",
]
