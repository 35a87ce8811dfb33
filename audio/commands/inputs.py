"""The files that a command is given: files, and folders of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.files import require_file
from ..data.manifest import read_folder


def list_inputs(places: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names and the absolute paths of audio files; those of a folder are named relative to it.

    Raises:
        UserError: one is missing, empty, or a folder without audio files.
    """
    names: list[str] = []
    paths: list[str] = []
    for place in places:
        if Path(place).expanduser().is_dir():
            found = read_folder(place, labelled=False)
            names += list(found.names)
            paths += list(found.paths)
        else:
            names.append(place)
            paths.append(str(require_file(place)))
    return names, paths
