"""Speed and memory of the operators against peers, measured in one process: ``python -m benchmarks``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from longscan.core.benchmark.memory import ResidentMemory, release_freed_memory


@dataclass(frozen=True)
class Measurement:
    """Seconds of repeated runs, and the memory that one run added at its peak, in bytes."""

    seconds: list[float]
    peak_memory: int

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Row:
    """One line of the table: a contestant on a case. ``measurement`` is None where the peer is missing."""

    benchmark: str
    case: str
    contestant: str
    measurement: Measurement | None
    note: str = ""


def measure(run: Callable[[], object], repeats: int, warm_up: int = 1) -> Measurement:
    """Time ``run`` on the CPU. The peak is sampled on a warm-up run (or on the only run), by the resident size."""
    sampled: list[int] = []
    seconds: list[float] = []
    for index in range(warm_up + repeats):
        watch = index == 0
        if watch:
            release_freed_memory()
        sampler = ResidentMemory() if watch else None
        start = time.perf_counter()
        run()
        elapsed = time.perf_counter() - start
        if sampler is not None:
            sampled.append(sampler.stop())
        if index >= warm_up:
            seconds.append(elapsed)
    return Measurement(seconds, max(sampled))
