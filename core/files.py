"""Files that exist to be read, and writing so that a failure never leaves half a result or loses an earlier one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


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


def require_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file that exists and can be read, absolute, ``~`` expanded; symbolic links stay.

    Raises:
        UserError: nothing there, a folder, no permission, or an empty file.
    """
    file = Path(os.path.abspath(Path(path).expanduser()))
    if file.is_dir():
        raise UserError(f"{file}: is a folder; name a file in it")
    if not file.exists():
        raise UserError(f"{file}: no such file; check the path")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file}: no permission to read it; change its mode or copy it")
    if file.stat().st_size == 0:
        raise UserError(f"{file}: the file is empty; copy or download it again")
    return file
