"""The images that a command is given: files, and folders of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.files import require_file
from ..data.folders import read_plain_folder
from ..data.images import Images, file_images


def list_inputs(places: Sequence[str]) -> Images:
    """Return the images of files and folders; those of a folder are named relative to it where it is the only input,
    and otherwise by their path, so that two folders with files of the same names stay apart.

    Raises:
        UserError: one is missing, empty, or a folder without images.
    """
    names: list[str] = []
    paths: list[Path] = []
    for place in places:
        if Path(place).expanduser().is_dir():
            found = read_plain_folder(place)
            names += [name if len(places) == 1 else (Path(place) / name).as_posix() for name in found.names]
            paths += found.store.paths  # type: ignore[attr-defined]
        else:
            names.append(place)
            paths.append(require_file(place))
    return file_images("the command line", paths, names)
