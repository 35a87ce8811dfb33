"""The selective scan in both directions, added: the peer turns its inputs and its result around."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..ops import ScanDirection, selective_scan_bidirectional
from .contests import Contest, Maker, Options, Step, step
from .selective_scan import inputs, work

#: (batch, length, dim)
LARGE = [(128, 197, 384), (8, 6084, 384)]
SMALL = [(2, 197, 64)]

#: Arguments that both directions share; the others each has for itself.
_SHARED = ("u", "z")


def both_directions(forward: dict[str, Tensor], reverse: dict[str, Tensor], backend: str | None = None) -> Tensor:
    """Ours: one call for the sum of the scans of two sets of arguments, the second from the end."""
    left, right = (ScanDirection(*(given[name] for name in ScanDirection._fields)) for given in (forward, reverse))
    return selective_scan_bidirectional(left, right, forward["z"], True, backend=backend)


def _pair(options: Options, shape: tuple[int, int, int], grad: bool, channels_first: bool) -> list[dict[str, Tensor]]:
    forward, reverse = (inputs(options, *shape, grad, channels_first) for _ in range(2))
    return [forward, reverse | {name: forward[name] for name in _SHARED}]


def _leaves(pair: list[dict[str, Tensor]]) -> list[Tensor]:
    return [*pair[0].values(), *(tensor for name, tensor in pair[1].items() if name not in _SHARED)]


def _ours(options: Options, shape: tuple[int, int, int], backward: bool, backend: str | None) -> Maker:
    def make() -> Step:
        pair = _pair(options, shape, backward, False)
        return step(lambda: both_directions(pair[0], pair[1], backend), _leaves(pair), backward)

    return make


def _mamba_ssm(options: Options, shape: tuple[int, int, int], backward: bool) -> Maker:
    def make() -> Step:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        forward, reverse = pair = _pair(options, shape, backward, True)

        def call() -> Tensor:
            # What varies along the length is turned around, as a user of the peer does.
            turned = {name: tensor.flip(-1) if tensor.ndim == 3 else tensor for name, tensor in reverse.items()}
            right = selective_scan_fn(**turned, delta_softplus=True)
            return selective_scan_fn(**forward, delta_softplus=True) + right.flip(-1)

        return step(call, _leaves(pair), backward)

    return make


def contests(options: Options) -> Iterator[Contest]:
    """Forward and, if asked for, with backward. The limit counts u, z and y once, what each direction has twice."""
    for shape in options.choose(LARGE, SMALL):
        batch, length, dim = shape
        bytes_moved, exponentials = work(options, *shape)
        shared = 3 * batch * length * dim * options.dtype.itemsize
        for backward in options.passes:
            peers = {"plain torch": _ours(options, shape, backward, "torch")}
            if options.device == "cuda":
                peers = {"mamba-ssm, flips": _mamba_ssm(options, shape, backward), **peers}
            yield Contest(
                "bidirectional_scan",
                {"batch": batch, "length": length, "dim": dim},
                backward,
                _ours(options, shape, backward, None),
                peers,
                2 * bytes_moved - shared,
                2 * exponentials,
            )
