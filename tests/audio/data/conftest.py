"""Small recordings that tests write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longscan.audio.data.writing import write_audio

Record = Callable[..., np.ndarray]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """``record(name, frames, rate=8000, channels=1)`` writes noise to a file of ``tmp_path`` and returns it, float32
    (frames, channels); the name decides the noise."""

    def write(name: str, frames: int = 1000, rate: int = 8000, channels: int = 1) -> np.ndarray:
        generator = np.random.default_rng(list(name.encode()))
        samples = (generator.integers(-16_000, 16_000, (frames, channels)) / 32768).astype(np.float32)
        write_audio(tmp_path / name, samples, rate)
        return samples

    return write
