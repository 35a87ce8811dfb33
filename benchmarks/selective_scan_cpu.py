"""The selective scan on a CPU, forward and backward, against what people run there today.

The last row is a yardstick, not a limit: the exponentials alone (one for each token, channel and state, in each of
the two passes), at the best rate at which ``torch.exp_`` computes them in the cache. Memory is no limit here: the
scan reads and writes a few floats for some hundreds of operations.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from longscan.core.ops import selective_scan

from . import Measurement, Row, measure

NAME = "selective_scan_cpu"
CASES = ((4, 2048, 256, 16), (1, 16384, 256, 16))
# The sequential peer's backward pass grows with the square of the length: minutes for one run.
_SLOW_PEER_UP_TO = 2048


def run(repeats: int, report: Callable[[str], None]) -> list[Row]:
    """Measure every contestant on every case."""
    rows = []
    for batch, length, dim, state in CASES:
        case = f"batch {batch}, length {length}, dim {dim}, state {state}, float32, forward + backward"
        inputs = _inputs(batch, length, dim, state)
        for name, make in _CONTESTANTS.items():
            report(f"{case}: {name}")
            slow = name.startswith("transformers") and name.endswith("loop")
            if slow and length > _SLOW_PEER_UP_TO:
                rows.append(Row(NAME, case, name, None, "not run: its backward grows with length squared"))
                continue
            try:
                step = make(inputs)
            except ImportError as error:
                rows.append(Row(NAME, case, name, None, f"missing: {error}"))
                continue
            measurement = measure(step, 1, warm_up=0) if slow else measure(step, repeats)
            rows.append(Row(NAME, case, name, measurement, "one run, none to warm up" if slow else ""))
        exponentials = _exponentials(batch * length * dim * state * 2)
        rows.append(Row(NAME, case, "yardstick: the exponentials alone", exponentials, "torch.exp_ in cache"))
    return rows


def _inputs(batch: int, length: int, dim: int, state: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    A = -torch.arange(1, state + 1, dtype=torch.float32).expand(dim, state).contiguous()
    inputs = {
        "u": torch.randn(batch, length, dim),
        "delta": torch.randn(batch, length, dim) - 4,
        "A": A,
        "B": torch.randn(batch, length, state),
        "C": torch.randn(batch, length, state),
        "D": torch.ones(dim),
        "z": torch.randn(batch, length, dim),
        "delta_bias": torch.zeros(dim),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def _ours(backend: str) -> Callable[[dict[str, Tensor]], Callable[[], None]]:
    def make(inputs: dict[str, Tensor]) -> Callable[[], None]:
        gradient = torch.ones_like(inputs["u"])

        def step() -> None:
            y = selective_scan(**inputs, delta_softplus=True, backend=backend)
            torch.autograd.grad(y, list(inputs.values()), gradient)

        return step

    return make


def _transformers(use_mambapy: bool) -> Callable[[dict[str, Tensor]], Callable[[], None]]:
    """The scan of MambaMixer in transformers: discretisation, then a loop over time or mambapy's parallel scan."""

    def make(inputs: dict[str, Tensor]) -> Callable[[], None]:
        from transformers.models.mamba.modeling_mamba import mamba_selective_scan

        if use_mambapy:
            import mambapy.pscan  # noqa: F401  # transformers would fall back to its loop without a word

        channels_first = {
            name: tensor.detach().mT.contiguous().requires_grad_() if tensor.ndim == 3 else tensor
            for name, tensor in inputs.items()
        }
        arguments = [channels_first[name] for name in ("u", "delta", "A", "B", "C")]
        options = {name: channels_first[name] for name in ("D", "z", "delta_bias")}
        gradient = torch.ones_like(channels_first["u"])

        def step() -> None:
            y = mamba_selective_scan(*arguments, **options, delta_softplus=True, use_mambapy=use_mambapy)
            torch.autograd.grad(y, list(channels_first.values()), gradient)

        return step

    return make


def _loop_over_views(inputs: dict[str, Tensor]) -> Callable[[], None]:
    """The same sequential operations, but over views from one ``unbind``, whose backward is linear in the length."""
    gradient = torch.ones_like(inputs["u"])

    def step() -> None:
        u, delta, A, B, C, D, z, bias = inputs.values()
        dt = torch.nn.functional.softplus(delta + bias)
        decays = torch.exp(dt[..., None] * A).unbind(1)
        increments = ((dt * u)[..., None] * B[:, :, None]).unbind(1)
        h = torch.zeros_like(increments[0])
        outputs = []
        for decay, increment, c in zip(decays, increments, C.unbind(1), strict=True):
            h = decay * h + increment
            outputs.append((h @ c[..., None]).squeeze(-1))
        y = (torch.stack(outputs, 1) + D * u) * torch.nn.functional.silu(z)
        torch.autograd.grad(y, list(inputs.values()), gradient)

    return step


_CONTESTANTS: dict[str, Callable[[dict[str, Tensor]], Callable[[], None]]] = {
    "longscan cpu": _ours("cpu"),
    "longscan torch": _ours("torch"),
    "mambapy.pscan": _transformers(use_mambapy=True),
    "sequential loop over unbound views": _loop_over_views,
    "transformers sequential loop": _transformers(use_mambapy=False),
}


def _exponentials(count: int) -> Measurement:
    """Seconds for ``count`` exponentials at the best rate seen."""
    block = torch.zeros(64 * 1024)
    repeats, rates = 200, []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(repeats):
            block.exp_()
            block.zero_()
        rates.append(repeats * block.numel() / (time.perf_counter() - start))
    return Measurement([count / max(rates)], 0)
