"""One step of decoding beside mamba-ssm's kernel: as a CUDA graph over several states, since a launch takes longer."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..ops import selective_state_update
from .contests import Contest, Maker, Options, Step, random

STATE = 16
#: (batch, dim)
LARGE = [(1, 1536), (128, 1536)]
SMALL = [(1, 64), (8, 64)]
_CALLS = 16  # at batch 128 and dim 1536 their states are several times the L2 cache; at batch 1 they stay in it


def _maker(options: Options, batch: int, dim: int, contestant: str) -> Maker:
    def make() -> Step:
        states = [random(options, batch, dim, STATE, dtype=torch.float32) for _ in range(_CALLS)]
        u, delta, z = (random(options, batch, dim) for _ in range(3))
        B, C = (random(options, batch, STATE) for _ in range(2))
        A = -torch.rand(dim, STATE, device=options.device)
        D, bias = (random(options, dim, dtype=torch.float32) for _ in range(2))
        if contestant == "mamba-ssm":
            from mamba_ssm.ops.triton.selective_state_update import selective_state_update as peer

            def advance(state: torch.Tensor) -> None:
                peer(state, u, delta, A, B, C, D, z, bias, True)
        else:
            backend = "torch" if contestant == "plain torch" else None

            def advance(state: torch.Tensor) -> None:
                selective_state_update(state, u, delta, A, B, C, D, z, bias, True, backend=backend)

        def run() -> None:
            with torch.no_grad():
                for state in states:
                    advance(state)

        return run

    return make


def contests(options: Options) -> Iterator[Contest]:
    """One row for each shape: a step has no backward pass."""
    names = ["mamba-ssm", "plain torch"] if options.device == "cuda" else ["plain torch"]
    for batch, dim in options.choose(LARGE, SMALL):
        yield Contest(
            "selective_state_update",
            {"batch": batch, "dim": dim},
            False,
            _maker(options, batch, dim, "longscan"),
            {name: _maker(options, batch, dim, name) for name in names},
            batch * dim * (4 * options.dtype.itemsize + 2 * 4 * STATE),
            calls=_CALLS,
            graph=True,
        )
