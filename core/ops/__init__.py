"""Sequence operators: pure functions on tensors laid out (batch, length, channels).

Every operator picks its implementation by device (``backend=`` and the environment variable LONGSCAN_BACKEND force
one), registers with ``torch.library`` and differentiates in all tensor arguments. Importing this package compiles
nothing and touches no device; the CPU kernels are compiled on their first call and then kept on disk.
"""

from __future__ import annotations

from .linear_scan import linear_scan
from .long_conv import long_conv
from .selective_scan import selective_scan
from .selective_state_update import selective_state_update
from .short_conv import short_conv

__all__ = ["linear_scan", "long_conv", "selective_scan", "selective_state_update", "short_conv"]
