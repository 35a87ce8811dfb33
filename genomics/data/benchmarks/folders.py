"""Folders of benchmarks."""

from __future__ import annotations

from pathlib import Path

from ....core.errors import UserError
from ..files import known_names


def existing_folder(folder: str, task: str | None = None) -> Path:
    """Return a benchmark's folder, or that of one task in it.

    Raises:
        UserError: there is none; names those that are there.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; check the path")
    if task is None:
        return root
    if not (root / task).is_dir():
        known = subfolders((root / task).parent if (root / task).parent.is_dir() else root)
        raise UserError(f"{root}: has no task {task!r} ({known_names(Path(task).name, known)}); check folder and task")
    return root / task


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, sorted, hidden ones left out."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
