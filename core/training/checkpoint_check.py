"""Look at a checkpoint before anything is built on it."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ..checkpoint_files import load_torch_file
from ..errors import UserError


def check_checkpoint(path: Path, *, resume: bool) -> None:
    """Check that ``path`` is a checkpoint of a training run; nothing in it is run.

    Args:
        resume: whether training is to go on, which needs more than the weights.

    Raises:
        UserError: the file is missing, cut short, of another kind, or contains code.
    """
    if not path.is_file():
        raise UserError(f"--ckpt_path {path}: no such file")
    # Lightning reads it next, and knows no containers of other programs.
    checkpoint = load_torch_file(path, foreign=False)
    wanted = ["state_dict", "pytorch-lightning_version"]
    wanted += ["loops", "optimizer_states", "lr_schedulers"] if resume else []
    missing = [key for key in wanted if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        purpose = "training cannot be resumed from it" if resume else "it is no checkpoint of a training run"
        raise UserError(f"{path} lacks {', '.join(missing)}: {purpose}")


def mismatch(error: RuntimeError, path: Path) -> UserError | None:
    """Make one line of torch's list of keys that do not fit, None where ``error`` is another."""
    lines = str(error).splitlines()
    if not lines or "Error(s) in loading state_dict" not in lines[0]:
        return None
    # A line can hold the names of all parameters.
    problems = [textwrap.shorten(line, 240, placeholder=" …") for line in lines[1:]]
    shown = " ".join(problems[:2]) + (f" (and {len(problems) - 2} more)" if len(problems) > 2 else "")
    return UserError(f"{path} is of another model than the configuration describes: {shown}")
