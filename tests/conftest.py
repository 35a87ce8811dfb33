"""What every test shares: one thread for each worker, a fixed seed, and the folder of reference fixtures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from command_runs import Command, run

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


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs commands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["longscan"])
    return run
