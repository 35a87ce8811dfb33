"""The short convolution with SiLU beside causal-conv1d and torch's own, each in its own layout."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from ..ops import short_conv
from .contests import Contest, Maker, Options, Step, random, step

WIDTH = 4
#: (batch, length, dim)
LARGE = [(8, 2048, 1536), (256, 1024, 512)]
SMALL = [(2, 256, 64), (4, 100, 32)]


def _maker(options: Options, shape: tuple[int, int, int], backward: bool, contestant: str) -> Maker:
    def make() -> Step:
        batch, length, dim = shape
        layout = (batch, length, dim) if contestant == "longscan" else (batch, dim, length)
        x = random(options, *layout, requires_grad=backward)
        weight = random(options, dim, WIDTH, requires_grad=backward)
        bias = random(options, dim, requires_grad=backward)
        if contestant == "causal-conv1d":
            from causal_conv1d import causal_conv1d_fn

            return step(lambda: causal_conv1d_fn(x, weight, bias, activation="silu"), [x, weight, bias], backward)

        def ours() -> Tensor:
            y = short_conv(x, weight, bias, "silu")
            assert isinstance(y, Tensor)
            return y

        def plain() -> Tensor:
            y = F.conv1d(x, weight[:, None], bias, padding=WIDTH - 1, groups=dim)
            return F.silu(y[..., :length])

        return step(ours if contestant == "longscan" else plain, [x, weight, bias], backward)

    return make


def contests(options: Options) -> Iterator[Contest]:
    """Forward and, if asked for, with backward."""
    names = ["causal-conv1d", "plain torch"] if options.device == "cuda" else ["plain torch"]
    for shape in options.choose(LARGE, SMALL):
        batch, length, dim = shape
        for backward in options.passes:
            yield Contest(
                "short_conv",
                {"batch": batch, "length": length, "dim": dim, "width": WIDTH},
                backward,
                _maker(options, shape, backward, "longscan"),
                {name: _maker(options, shape, backward, name) for name in names},
                2 * batch * length * dim * options.dtype.itemsize,
            )
