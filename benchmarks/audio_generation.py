"""Raw audio drawn sample by sample: SaShiMi beside a WaveNet of the paper's size with cached generation.

SaShiMi draws as ``longscan audio generate`` does, random numbers and log-probabilities included. WaveNet draws without
log-probabilities, on a GPU as a CUDA graph of several samples. Weights of both are random, which changes no figure; all
arithmetic is float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import longscan
from longscan.audio.generation import sample_codes, stream_seeds
from longscan.core.benchmark.memory import ResidentMemory, release_freed_memory

from . import Measurement, Row
from .wavenet import WaveNet, WaveNetGeneration

NAME = "audio_generation"
#: device -> streams -> samples of each stream that one run draws, of SaShiMi and of WaveNet
RUNS: dict[str, dict[int, tuple[int, int]]] = {
    "cuda": {1: (65536, 4096), 128: (16384, 2048)},
    "cpu": {1: (4096, 1024)},
}
_SPAN = 16  # samples of WaveNet in a graph
_ZERO = 128


def run(repeats: int, report: Callable[[str], None]) -> list[Row]:
    """Both models on a CPU and, where there is one, on a GPU."""
    rows = []
    contestants = {"longscan SaShiMi, 8 layers, 4.1 M": _sashimi, "WaveNet, 40 layers, 4.2 M": _wavenet}
    for device in ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",):
        for streams, lengths in RUNS[device].items():
            case = f"{device}, {streams} stream{'s' if streams > 1 else ''}, float32, 1,000 samples of each"
            for (name, make), samples in zip(contestants.items(), lengths, strict=True):
                report(f"{case}: {name}")
                found = _measure(make(device, streams, samples), device, max(1, min(repeats, 5)))
                found = replace(found, seconds=[1000 * seconds / samples for seconds in found.seconds])
                rate = 1000 * streams / found.best
                rows.append(Row(NAME, case, name, found, f"{rate:,.0f} samples per second (runs of {samples} each)"))
    return rows


def _sashimi(device: str, streams: int, samples: int) -> Callable[[], object]:
    torch.manual_seed(0)
    model = longscan.create_model("sashimi").to(device).eval()
    seeds, prompt = stream_seeds(0, streams), np.empty(0, dtype=np.int64)
    return lambda: sample_codes(model, prompt, samples, seeds, zero=_ZERO, device=device)


def _wavenet(device: str, streams: int, samples: int) -> Callable[[], object]:
    torch.manual_seed(0)
    generation = WaveNetGeneration(WaveNet().to(device).eval(), streams, _ZERO)
    if device == "cpu":
        return lambda: [generation.sample().clone() for _ in range(samples)]
    drawn = torch.empty(_SPAN, streams, dtype=torch.int64, device=device)

    def several() -> None:
        for row in drawn:
            row.copy_(generation.sample())

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        several()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        several()

    def draw() -> Any:
        found = []
        for _ in range(samples // _SPAN):
            captured.replay()
            found.append(drawn.clone())
        return torch.cat(found).cpu()

    return draw


def _measure(draw: Callable[[], object], device: str, repeats: int) -> Measurement:
    """Wall clock, results on the host; memory is that of the device, or the growth of the process."""
    release_freed_memory()
    sampler = ResidentMemory() if device == "cpu" else None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    draw()
    peak = sampler.stop() if sampler is not None else torch.cuda.max_memory_allocated() - before
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        draw()
        seconds.append(time.perf_counter() - start)
    return Measurement(seconds, peak)
