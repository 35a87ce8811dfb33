"""Vim beside timm's DeiT (fused attention) at growing resolution, bf16 on a GPU: images per second and peak memory.

Features (no head) of a batch without gradients, and training steps (forward, cross entropy, backward, AdamW) under
bf16 autocast; both replayed as a CUDA graph, so that no contestant waits for Python, and called eagerly. Peak memory is
all that PyTorch allocated in an eager run: weights, input and what the run adds.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import longscan

from . import Measurement, Row

NAME = "vision_resolution"
_BLOCK_SECONDS = 0.1
#: Ours first, then timm's of the same width.
PAIRS = (("vim_tiny_patch16_224", "deit_tiny_patch16_224"), ("vim_small_patch16_224", "deit_small_patch16_224"))
#: Pixels of a side, and images of a batch at inference and in training.
SIZES = {224: (128, 64), 512: (32, 16), 768: (16, 8), 1024: (8, 4), 1248: (8, 4), 2048: (4, 2)}


def run(repeats: int, report: Callable[[str], None]) -> list[Row]:
    """Measure every size, or those named in VISION_SIZES ("224,1248"), with VISION_EAGER=0 as CUDA graphs alone;
    without a GPU there is nothing to measure."""
    if not torch.cuda.is_available():
        report(f"{NAME}: needs a GPU")
        return []
    chosen = [int(size) for size in os.environ.get("VISION_SIZES", "").split(",") if size] or list(SIZES)
    rows = []
    for size in chosen:
        inference, training = SIZES[size]
        for pair in PAIRS:
            cases: tuple[tuple[str, int, Callable[..., Measurement]], ...] = (
                ("features, bf16, CUDA graph", inference, _features_graph),
                ("features, bf16, eager", inference, _features_eager),
                ("training step, bf16 autocast, CUDA graph", training, _training_graph),
                ("training step, bf16 autocast, eager", training, _training_eager),
            )
            for what, batch, contest in cases:
                if os.environ.get("VISION_EAGER", "1") == "0" and "eager" in what:
                    continue
                case = f"{size} pixels, batch {batch}, {what}"
                for name in pair:
                    row = _contestant(case, name, size, batch, contest, repeats)
                    report(f"{case}: {name}: {row.note}")
                    rows.append(row)
    return rows


def _contestant(case: str, name: str, size: int, batch: int, contest: Callable[..., Measurement], repeats: int) -> Row:
    torch.manual_seed(0)
    try:
        found = contest(name, size, batch, repeats)
    except torch.cuda.OutOfMemoryError:
        return Row(NAME, case, name, None, "out of memory")
    except ImportError as error:
        return Row(NAME, case, name, None, str(error))
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    return Row(NAME, case, name, found, f"{batch / found.median:.1f} images/s, {found.peak_memory / 1e9:.2f} GB")


def _model(name: str, size: int, classes: int) -> nn.Module:
    if name.startswith("vim"):
        return longscan.create_model(name, img_size=size, num_classes=classes).cuda()
    import timm

    return timm.create_model(name, img_size=size, num_classes=classes).cuda()


def _features(name: str, size: int, batch: int, repeats: int, graph: bool) -> Measurement:
    model = _model(name, size, 0).bfloat16().eval()
    images = torch.randn(batch, 3, size, size, device="cuda", dtype=torch.bfloat16)

    def step() -> Tensor:
        with torch.no_grad():
            return model(images)

    return _measured(step, repeats, graph)


def _features_graph(name: str, size: int, batch: int, repeats: int) -> Measurement:
    return _features(name, size, batch, repeats, graph=True)


def _features_eager(name: str, size: int, batch: int, repeats: int) -> Measurement:
    return _features(name, size, batch, repeats, graph=False)


def _training(name: str, size: int, batch: int, repeats: int, graph: bool) -> Measurement:
    model = _model(name, size, 1000).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, capturable=True)
    images = torch.randn(batch, 3, size, size, device="cuda")
    labels = torch.randint(1000, (batch,), device="cuda")

    def step() -> Any:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):  # a cache has no place in a graph
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _measured(step, repeats, graph)


def _training_graph(name: str, size: int, batch: int, repeats: int) -> Measurement:
    return _training(name, size, batch, repeats, graph=True)


def _training_eager(name: str, size: int, batch: int, repeats: int) -> Measurement:
    return _training(name, size, batch, repeats, graph=False)


def _measured(step: Callable[[], Any], repeats: int, graph: bool) -> Measurement:
    """Time blocks of calls back to back, launches included: images per second as a user gets them."""
    side = torch.cuda.Stream()  # from which a backward pass can be captured
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles kernels; makes the optimizer's state, which counts as memory
            step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    calls = max(3, math.ceil(_BLOCK_SECONDS / (time.perf_counter() - start)))
    peak = torch.cuda.max_memory_allocated()
    run = step
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step()
        run = captured.replay
        run()
        torch.cuda.synchronize()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / calls)
    return Measurement(seconds, peak)
