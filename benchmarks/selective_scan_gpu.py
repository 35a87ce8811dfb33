"""The selective scan on an NVIDIA GPU: our paths beside mamba-ssm's kernel, forward and backward."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from longscan.core.ops import selective_scan

from . import Measurement, Row

NAME = "selective_scan_gpu"
#: (batch, length, dim, state)
CASES = ((128, 200, 192, 16), (8, 2048, 1536, 16), (1, 16384, 512, 16))
BACKENDS = ("triton", "torch", "mamba_ssm")


def run(repeats: int, report: Callable[[str], None]) -> list[Row]:
    """Measure the backends on every case, in bfloat16 and float32."""
    if not torch.cuda.is_available():
        return [Row(NAME, "all cases", "longscan torch", None, "missing: needs an NVIDIA GPU")]
    rows = []
    for batch, length, dim, state in CASES:
        for dtype in (torch.float32, torch.bfloat16):
            for backward in (False, True):
                what = "forward + backward" if backward else "forward"
                case = f"batch {batch}, length {length}, dim {dim}, state {state}, {str(dtype)[6:]}, gate, {what}"
                for backend in BACKENDS[backward:]:  # the backward pass of "triton" is that of "torch"
                    report(f"{case}: {backend}")
                    try:
                        step = _step(batch, length, dim, state, dtype, backend, backward)
                        measurement = _measure(step, repeats)
                    except (ValueError, ImportError) as error:
                        rows.append(Row(NAME, case, f"longscan {backend}", None, f"missing: {error}"))
                        continue
                    rows.append(Row(NAME, case, f"longscan {backend}", measurement))
    return rows


def _step(
    batch: int, length: int, dim: int, state: int, dtype: torch.dtype, backend: str, backward: bool
) -> Callable[[], None]:
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, device="cuda", dtype=dtype).requires_grad_(backward)  # noqa: E731
    u, delta, z = (make(batch, length, dim) for _ in range(3))
    B, C = make(batch, length, state), make(batch, length, state)
    A = (-torch.rand(dim, state, device="cuda") - 0.1).requires_grad_(backward)
    D, bias = (torch.randn(dim, device="cuda").requires_grad_(backward) for _ in range(2))
    gradient = torch.randn(batch, length, dim, device="cuda", dtype=dtype)

    def step() -> None:
        y = selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True, backend=backend)
        if backward:
            torch.autograd.grad(y, [u, delta, A, B, C, D, z, bias], gradient)

    return step


def _measure(step: Callable[[], None], repeats: int) -> Measurement:
    """Time with the device idle before and after, after two runs to warm up; the peak is the allocator's."""
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return Measurement(seconds, torch.cuda.max_memory_allocated() - before)
