"""UCR/UEA files that several tests read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEADER = "@problemName Waves\n@timeStamps false\n@univariate false\n@classLabel true slow fast\n@data\n"


def waves(path: Path, count: int, seed: int, *, channels: int = 2, equal: bool = False) -> Path:
    """Write series of two classes, which differ in frequency, of unequal lengths, noisy, far from 0."""
    generator = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        length = 40 if equal else int(generator.integers(30, 50))
        label = number % 2
        phase = generator.uniform(0, 6, channels)
        values = np.sin(np.arange(length)[:, None] * (0.3, 0.6)[label] + phase) + 0.3 * generator.normal(
            size=(length, channels)
        )
        text = ":".join(",".join(f"{value:.4f}" for value in 500 + 20 * column) for column in values.T)
        lines.append(f"{text}:{('slow', 'fast')[label]}")
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


def bursts(path: Path, count: int, seed: int) -> Path:
    """Write series of noise with a short oscillation somewhere, slow in one class and fast in the other."""
    generator = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        values, begin = 0.2 * generator.normal(size=300), int(generator.integers(0, 285))
        values[begin : begin + 15] += np.sin(np.arange(15) * (0.9, 1.8)[number % 2] + generator.uniform(0, 6))
        lines.append(",".join(f"{value:.4f}" for value in values) + f":{('slow', 'fast')[number % 2]}")
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path
