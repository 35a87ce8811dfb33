"""What every test shares: one thread for each worker, a fixed seed, and the folder of reference fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Triton decides when it is imported whether its kernels are interpreted, and so run on a CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of inputs and outputs computed with the original implementations."""
    return Path(__file__).parent / "golden"
