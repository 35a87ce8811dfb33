"""The residual addition with RMS norm beside mamba-ssm's and torch's own, a float32 stream beside shorter inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..ops import residual_norm
from .contests import Contest, Maker, Options, Step, random, step

#: (tokens, dim)
LARGE = [(16384, 768), (131072, 512), (25216, 384)]
SMALL = [(512, 64)]


def _maker(options: Options, tokens: int, dim: int, backward: bool, contestant: str) -> Maker:
    def make() -> Step:
        x = random(options, tokens, dim, requires_grad=backward)
        residual = random(options, tokens, dim, dtype=torch.float32, requires_grad=backward)
        weight = random(options, dim, dtype=torch.float32, requires_grad=backward)
        leaves = [x, residual, weight]
        if contestant == "mamba-ssm":
            from mamba_ssm.ops.triton.layer_norm import rms_norm_fn

            def call() -> tuple[Tensor, Tensor]:
                return rms_norm_fn(x, weight, None, residual=residual, prenorm=True, residual_in_fp32=True)
        else:
            backend = "torch" if contestant == "plain torch" else None

            def call() -> tuple[Tensor, Tensor]:
                y, stream = residual_norm(x, weight, None, residual, return_residual=True, backend=backend)
                return y, stream

        if not backward:
            return step(lambda: call()[0], leaves, False)
        gradients = [torch.ones_like(x), torch.ones_like(residual)]
        return lambda: torch.autograd.grad(call(), leaves, gradients)

    return make


def contests(options: Options) -> Iterator[Contest]:
    """Forward and, if asked for, with backward: a gradient arrives at the norm and at the stream."""
    names = ["mamba-ssm", "plain torch"] if options.device == "cuda" else ["plain torch"]
    for tokens, dim in options.choose(LARGE, SMALL):
        for backward in options.passes:
            yield Contest(
                "residual_norm",
                {"tokens": tokens, "dim": dim},
                backward,
                _maker(options, tokens, dim, backward, "longscan"),
                {name: _maker(options, tokens, dim, backward, name) for name in names},
                tokens * dim * (2 * options.dtype.itemsize + 2 * 4),
            )
