"""Writing files so that a failure never leaves half a result or loses an earlier one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path that takes the name of ``path`` when the block ends well, and vanishes otherwise.

    The temporary name keeps the ending, by which writers choose a format; missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        if temporary.is_file():  # some writers make files that only their owner can read
            os.umask(mask := os.umask(0))
            temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
