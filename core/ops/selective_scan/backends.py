"""What computes the selective scan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from . import mamba_ssm, reference, registration
from .arguments import Arguments

#: The backends by name: each takes the checked arguments and returns y and the final states.
BACKENDS: dict[str, Callable[[Arguments], tuple[Tensor, Tensor]]] = {
    "reference": reference.run,
    "cpu": partial(registration.run, "cpu"),
    "torch": partial(registration.run, "torch"),
    "triton": partial(registration.run, "triton"),
    "mamba_ssm": mamba_ssm.run,
}
