"""The precision in which recurrences accumulate."""

from __future__ import annotations

import torch

_ACCUMULATE = {torch.float64: torch.float64, torch.complex128: torch.complex128, torch.complex64: torch.complex64}
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for float32, bfloat16 and float16; float64 and complex dtypes stay."""
    return _ACCUMULATE.get(dtype, torch.float32)


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """The complex dtype of a real float32 or float64."""
    return _COMPLEX[dtype]
