"""Errors that a user can cause: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input, not in the program.

    The message is a single line that names the file, record or argument and the remedy. The command line prints it
    without a traceback and exits with status 2; from Python it is an ordinary ``ValueError``.
    """


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return a phrase with the known names most like ``name``, or with (eight of) all where none is like it."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.4)
    if close:
        return f"nearest: {', '.join(close)}"
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return f"known: {', '.join(known[:8])}{more}" if known else "none is known"
