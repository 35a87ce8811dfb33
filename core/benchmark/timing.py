"""Timing on a GPU (events, the median, a cold L2 cache) and on a CPU, and peak memory of one run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .contests import Step
from .memory import ResidentMemory, release_freed_memory

#: How the figures were taken, for the record.
METHOD = {
    "cuda": "CUDA events around each run, median; two runs to warm up; a buffer larger than the L2 cache is "
    "overwritten several times before each timed run, so that the host is done launching when it begins; runs of "
    "selective_state_update are a CUDA graph over several states, divided by their number; peak memory is what one "
    "run allocates beside its inputs",
    "cpu": "wall clock of each run, median; two runs to warm up, on the second of which the growth of the resident "
    "size is sampled",
}
_SECONDS = 1.0  # to spend on the timed runs of one contestant, if that is less than their number takes
_WARM_UP = 2
_FLUSH = 512 << 20  # bytes: several times the L2 cache of any GPU
_FLUSHES = 8  # at least; one takes a tenth of a millisecond or more


@dataclass(frozen=True)
class Measurement:
    """Seconds of one call (the median), their number, and bytes that a run added at its peak."""

    seconds: float
    repeats: int
    peak_bytes: int


def measure(step: Step, device: str, repeats: int, calls: int = 1, graph: bool = False) -> Measurement:
    """Time ``step``, which makes ``calls`` calls."""
    times, peak = _measure_cuda(step, repeats, graph) if device == "cuda" else _measure_cpu(step, repeats)
    return Measurement(statistics.median(times) / calls, len(times), peak)


def _enough(seconds: float, repeats: int) -> int:
    return max(min(repeats, 3), min(repeats, int(_SECONDS / max(seconds, 1e-9))))


def _measure_cuda(step: Step, repeats: int, graph: bool) -> tuple[list[float], int]:
    for _ in range(_WARM_UP):
        step()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() - before
    run: Callable[[], object] = step
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step()
        run = captured.replay
    flush = torch.empty(_FLUSH, dtype=torch.int8, device="cuda")
    count = _enough(elapsed, repeats)
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(count)] for _ in range(2)]
    # What the host needs for a run is less than the run took, waiting included.
    flushes = _FLUSHES if graph else max(_FLUSHES, min(400, math.ceil(elapsed / 1e-4)))
    for begin, end in zip(*marks, strict=True):
        for _ in range(flushes):
            flush.zero_()
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in zip(*marks, strict=True)], peak


def _measure_cpu(step: Step, repeats: int) -> tuple[list[float], int]:
    step()  # may compile
    release_freed_memory()
    sampler = ResidentMemory()
    start = time.perf_counter()
    step()
    elapsed = time.perf_counter() - start
    peak = sampler.stop()
    times = []
    for _ in range(_enough(elapsed, repeats)):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times, peak
