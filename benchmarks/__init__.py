"""Speed and memory of the operators against peers, measured in one process: ``python -m benchmarks``."""

from __future__ import annotations

import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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
            _release_freed_memory()
        sampler = _Sampler() if watch else None
        start = time.perf_counter()
        run()
        elapsed = time.perf_counter() - start
        if sampler is not None:
            sampled.append(sampler.stop())
        if index >= warm_up:
            seconds.append(elapsed)
    return Measurement(seconds, max(sampled))


class _Sampler:
    """The growth of this process's resident size, looked at every few milliseconds by a thread."""

    def __init__(self) -> None:
        self._start = self._peak = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self._peak = max(self._peak, _resident())

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._peak - self._start


def _release_freed_memory() -> None:
    """Give back what earlier contestants freed, which the next one would otherwise reuse without a trace."""
    gc.collect()
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def _resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not tell."""
    statistics_file = Path("/proc/self/statm")
    if not statistics_file.exists():
        return 0
    return int(statistics_file.read_text().split()[1]) * 4096
