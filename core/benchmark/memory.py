"""How much memory a run adds to this process, on a CPU."""

from __future__ import annotations

import ctypes
import gc
import threading
from pathlib import Path


class ResidentMemory:
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
        """Stop looking, and return the largest growth in bytes."""
        self._stop.set()
        self._thread.join()
        return max(self._peak, _resident()) - self._start


def release_freed_memory() -> None:
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
