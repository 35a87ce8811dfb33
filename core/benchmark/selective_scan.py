"""The selective scan beside mamba-ssm's kernel, which gets contiguous tensors in its own layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..ops import selective_scan
from .contests import Contest, Maker, Options, Step, random, step

STATE = 16
#: (batch, length, dim)
LARGE = [(8, 2048, 1536), (1, 131072, 512), (1, 1048576, 512), (128, 197, 384), (8, 8192, 1024)]
SMALL = [(2, 256, 64), (1, 1000, 32)]


def inputs(options: Options, batch: int, length: int, dim: int, grad: bool, channels_first: bool) -> dict[str, Tensor]:
    """Arguments of a Mamba layer's scan with gate, in the order of both functions: (batch, length, dim), or
    (batch, dim, length) for the peer. A, D and the bias are float32."""

    def sequence(channels: int) -> Tensor:
        shape = (batch, channels, length) if channels_first else (batch, length, channels)
        return random(options, *shape, requires_grad=grad)

    def vector(*shape: int) -> Tensor:
        return random(options, *shape, dtype=torch.float32, requires_grad=grad)

    rates = -torch.arange(1, STATE + 1, device=options.device, dtype=torch.float32).repeat(dim, 1)
    return {
        "u": sequence(dim),
        "delta": sequence(dim),
        "A": rates.requires_grad_(grad),
        "B": sequence(STATE),
        "C": sequence(STATE),
        "D": vector(dim),
        "z": sequence(dim),
        "delta_bias": vector(dim),
    }


def work(options: Options, batch: int, length: int, dim: int) -> tuple[int, int]:
    """Bytes (u, delta, z, y, B, C once each) and exponentials (one for each token, channel and state)."""
    numbers = batch * length * (4 * dim + 2 * STATE)
    return numbers * options.dtype.itemsize, batch * length * dim * STATE


def scan(given: dict[str, Tensor], **options: Any) -> Tensor:
    """Our operator on such arguments."""
    arguments: dict[str, Any] = {**given, "delta_softplus": True, **options}
    y = selective_scan(**arguments)
    assert isinstance(y, Tensor)
    return y


def _ours(options: Options, shape: tuple[int, int, int], backward: bool, backend: str | None) -> Maker:
    def make() -> Step:
        given = inputs(options, *shape, backward, False)
        return step(lambda: scan(given, backend=backend), list(given.values()), backward)

    return make


def _mamba_ssm(options: Options, shape: tuple[int, int, int], backward: bool) -> Maker:
    def make() -> Step:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        given = inputs(options, *shape, backward, True)
        return step(lambda: selective_scan_fn(**given, delta_softplus=True), list(given.values()), backward)

    return make


def contests(options: Options) -> Iterator[Contest]:
    """Forward and, if asked for, with backward."""
    for shape in options.choose(LARGE, SMALL):
        bytes_moved, exponentials = work(options, *shape)
        for backward in options.passes:
            peers = {"plain torch": _ours(options, shape, backward, "torch")}
            if options.device == "cuda":
                peers = {"mamba-ssm": _mamba_ssm(options, shape, backward), **peers}
            yield Contest(
                "selective_scan",
                dict(zip(("batch", "length", "dim"), shape, strict=True)),
                backward,
                _ours(options, shape, backward, None),
                peers,
                bytes_moved,
                exponentials,
            )
