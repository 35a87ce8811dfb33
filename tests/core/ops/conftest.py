"""Lets the tests of this folder import ``operator_cases``, and split small inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from longscan.core.ops import _sequences

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiled kernels split the small inputs of these tests as they split large ones."""
    monkeypatch.setattr(_sequences, "MIN_TOKENS", 1)
