"""What the demos of the domains share: a training verb as one step, and the metrics that it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .errors import UserError


def run_step(verb: Callable[[list[str]], int], name: str, argv: list[str]) -> None:
    """Run a training verb, which ``name`` names for people ("audio fit").

    Raises:
        KeyboardInterrupt: if it was interrupted.
        UserError: if it did not finish; what went wrong was printed by it.
    """
    status = verb(argv)
    if status == 130:
        raise KeyboardInterrupt
    if status != 0:
        raise UserError(f"demo: the step `longscan {name} {' '.join(argv)}` did not finish")


def read_metrics(run: Path) -> dict[str, float]:
    """Return the metrics that a run wrote into its folder."""
    metrics: dict[str, float] = json.loads((run / "metrics.json").read_text())["metrics"]
    return metrics
