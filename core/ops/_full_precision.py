"""Matrix products in full float32, whatever precision the user chose for the layers of a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Turn TensorFloat-32 (three digits) off inside: kernels and states need more than activations."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu" or before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
