"""Small real recordings that ship with the package; README.md beside this file has their source and licence."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UserError, nearest

_FOLDER = Path(__file__).parent

#: Name of a packaged set: its manifest.
DATASETS = {"spoken_digits": "spoken_digits/recordings.csv"}


def dataset_path(name: str) -> Path:
    """Absolute path of the manifest of a packaged set; see `DATASETS`.

    Raises:
        UserError: an unknown name.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r} ({nearest(name, DATASETS)})")
    return _FOLDER / DATASETS[name]
