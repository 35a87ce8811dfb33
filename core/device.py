"""The device that a command computes on, by the name that was given."""

from __future__ import annotations

import torch

from .errors import UserError


def find_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is a GPU if there is one.

    Raises:
        UserError: it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: cannot be used ({reason}); use cpu or auto") from error
    return device
