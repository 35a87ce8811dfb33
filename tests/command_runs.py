"""The command line in this process, for tests of any domain."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from longscan.__main__ import main


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str


Command = Callable[[str], Outcome]


def run(line: str) -> Outcome:
    """Run ``longscan LINE`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(shlex.split(line))
    return Outcome(status, out.getvalue(), err.getvalue())
