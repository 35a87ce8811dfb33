"""The kernels of diagonal state spaces beside the table of all powers and KeOps; what ``cauchy`` shares with it.

The naive form holds a table (dim, state, length), in complex64 as all inputs. Where that does not fit, slices of the
channels go one after the other: a peer of its own, whose memory is that of one slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ..ops import vandermonde
from .contests import Contest, Maker, Options, Step, step

#: (dim, state, length)
LARGE = [(512, 64, 131072)]
SMALL = [(16, 32, 1024)]
SLICES = 16

#: Coefficients (1, dim, state), logarithms or poles (dim, state) and positions to kernels (1, dim, positions).
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def _ours(coefficients: Tensor, logs: Tensor, positions: Tensor) -> Tensor:
    return vandermonde(coefficients, logs, len(positions))


def _naive(coefficients: Tensor, logs: Tensor, positions: Tensor) -> Tensor:
    powers = torch.exp(logs[..., None] * positions)
    return 2 * torch.einsum("chn,hnl->chl", coefficients, powers).real


def _keops(coefficients: Tensor, logs: Tensor, positions: Tensor) -> Tensor:
    formula = "ComplexMult(v, ComplexExp(ComplexMult(p, l)))"
    return 2 * keops(formula, coefficients, logs, positions.to(logs.dtype))[..., 0]


def keops(formula: str, v: Tensor, p: Tensor, positions: Tensor) -> Tensor:
    """Sum a formula of modes ``v`` (1, dim, state) and ``p`` (dim, state) at complex positions ``l``, without a table.

    Returns:
        real and imaginary parts (1, dim, positions, 2).

    Raises:
        ImportError: KeOps is not installed.
    """
    from pykeops.torch import Genred

    reduce = Genred(formula, ["v = Vj(2)", "p = Vj(2)", "l = Vi(2)"], reduction_op="Sum", axis=1)
    v, p, positions = (torch.view_as_real(tensor.resolve_conj()).contiguous() for tensor in (v, p[None], positions))
    return reduce(v, p, positions.expand(*v.shape[:2], -1, 2).contiguous())


def modes(options: Options, dim: int, state: int) -> Tensor:
    """dt · A (dim, state) of S4D-Lin, with step sizes of 0.001 to 0.1."""
    dt = torch.logspace(-3, -1, dim)[:, None]
    imaginary = math.pi * torch.arange(state, dtype=torch.float32)
    return (dt * torch.complex(torch.full((state,), -0.5), imaginary)).to(options.device)


def maker(options: Options, kernel: Kernel, logs: Tensor, positions: Tensor, backward: bool, slices: int = 1) -> Maker:
    """A run of ``kernel`` for slices of the channels; ``logs`` and ``positions`` are the same for all contestants."""

    def make() -> Step:
        if kernel.__name__.startswith("_keops"):
            import pykeops.torch  # type: ignore[import-not-found] # noqa: F401
        coefficients = torch.randn(1, *logs.shape, dtype=torch.complex64, device=options.device)
        steps = []
        for v, p in zip(coefficients.chunk(slices, 1), logs.chunk(slices), strict=True):
            leaves = [part.clone().requires_grad_(backward) for part in (v, p)]
            steps.append(step(_call(kernel, leaves, positions), leaves, backward))
        if slices == 1:
            return steps[0]
        return lambda: [one() for one in steps]

    return make


def _call(kernel: Kernel, leaves: list[Tensor], positions: Tensor) -> Callable[[], Tensor]:
    return lambda: kernel(leaves[0], leaves[1], positions)


def compared(
    options: Options, kernels: Mapping[str, Kernel], logs: Tensor, positions: Tensor, backward: bool
) -> tuple[Maker, dict[str, Maker]]:
    """Ours and the peers, from ``kernels`` with the names ours, naive and keops."""
    peers = {
        "naive": maker(options, kernels["naive"], logs, positions, backward),
        f"naive, {SLICES} slices": maker(options, kernels["naive"], logs, positions, backward, SLICES),
    }
    if options.device == "cuda":
        peers["pykeops"] = maker(options, kernels["keops"], logs, positions, backward)
    return maker(options, kernels["ours"], logs, positions, backward), peers


def contests(options: Options) -> Iterator[Contest]:
    """Forward and, if asked for, with backward."""
    kernels = {"ours": _ours, "naive": _naive, "keops": _keops}
    for dim, state, length in options.choose(LARGE, SMALL):
        logs = modes(options, dim, state)
        positions = torch.arange(length, device=options.device, dtype=torch.float32)
        for backward in options.passes:
            yield Contest(
                "vandermonde",
                {"dim": dim, "state": state, "length": length},
                backward,
                *compared(options, kernels, logs, positions, backward),
                bytes_moved=4 * dim * length + 16 * dim * state,
            )
