"""The whole Mamba layer beside that of mamba-ssm (its fused path): float32 weights, autocast to the dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..mixers import create_mixer
from .contests import Contest, Maker, Options, Step, random, step

#: (batch, length, d_model)
LARGE = [(8, 2048, 768)]
SMALL = [(2, 128, 32)]


def _autocast(options: Options) -> AbstractContextManager[object]:
    if options.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(options.device, options.dtype)


def _maker(options: Options, shape: tuple[int, int, int], backward: bool, peer: bool) -> Maker:
    def make() -> Step:
        d_model = shape[2]
        if peer:
            from mamba_ssm.modules.mamba_simple import Mamba

            layer: nn.Module = Mamba(d_model, use_fast_path=True)
        else:
            layer = create_mixer("mamba", d_model)
        layer.to(options.device)
        x = random(options, *shape, requires_grad=backward)

        def call() -> Tensor:
            with _autocast(options):
                return layer(x)

        return step(call, [x, *layer.parameters()], backward)

    return make


def contests(options: Options) -> Iterator[Contest]:
    """Forward and, if asked for, with backward."""
    for shape in options.choose(LARGE, SMALL):
        for backward in options.passes:
            yield Contest(
                "mamba",
                dict(zip(("batch", "length", "d_model"), shape, strict=True)),
                backward,
                _maker(options, shape, backward, False),
                {"mamba-ssm": _maker(options, shape, backward, True)} if options.device == "cuda" else {},
            )
