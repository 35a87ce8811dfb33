"""What is compared: one call of ours and of each peer, on the same shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: One run, to be timed.
Step = Callable[[], Any]
#: Makes inputs and returns a run on them. Raises ImportError where a peer is not installed.
Maker = Callable[[], Step]


@dataclass(frozen=True)
class Options:
    """What the command line chose."""

    device: str
    dtype: torch.dtype
    shapes: str
    """"large", "small" or "all"."""
    backward: bool

    @property
    def passes(self) -> tuple[bool, ...]:
        """Whether to run backward, for each row of a shape."""
        return (False, True) if self.backward else (False,)

    def choose(self, large: list[Any], small: list[Any]) -> list[Any]:
        """The shapes to measure."""
        return {"large": large, "small": small, "all": [*small, *large]}[self.shapes]


@dataclass(frozen=True)
class Contest:
    """Ours and the peers on one shape."""

    operator: str
    shape: Mapping[str, int]
    backward: bool
    ours: Maker
    peers: Mapping[str, Maker] = field(default_factory=dict)
    bytes_moved: int = 0
    """That a forward pass must read and write at least; 0 where no limit is given."""
    exponentials: int = 0
    """That a forward pass must compute at least."""
    calls: int = 1
    """Calls in one run, by which its time is divided."""
    graph: bool = False
    """Run as a CUDA graph: for calls shorter than their launch."""


def random(options: Options, *shape: int, dtype: torch.dtype | None = None, requires_grad: bool = False) -> Tensor:
    """Normal numbers on the device."""
    tensor = torch.randn(*shape, device=options.device, dtype=dtype or options.dtype)
    return tensor.requires_grad_(requires_grad)


def step(call: Callable[[], Tensor], leaves: list[Tensor], backward: bool) -> Step:
    """A run of ``call`` without gradients, or with those of ``leaves`` for a gradient of ones of its result."""

    def forward() -> Tensor:
        with torch.no_grad():
            return call()

    gradients: list[Tensor] = []

    def both() -> tuple[Tensor, ...]:
        y = call()
        if not gradients:
            gradients.append(torch.ones_like(y))
        return torch.autograd.grad(y, leaves, gradients[0])

    return both if backward else forward
