"""Small real data sets that ship with the package; README.md beside this file has their sources and licences."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UserError, nearest

_FOLDER = Path(__file__).parent

#: Name -> file.
DATASETS = {"ETTh1": "ett/ETTh1.csv.gz"}


def dataset_path(name: str) -> Path:
    """Absolute path of a packaged file; see `DATASETS`.

    Raises:
        UserError: an unknown name.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r} ({nearest(name, DATASETS)})")
    return _FOLDER / DATASETS[name]
