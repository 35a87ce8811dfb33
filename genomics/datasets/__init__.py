"""Small real data sets that ship with the package; README.md beside this file has their sources and licences."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UserError, nearest

_FOLDER = Path(__file__).parent

#: Genomes (files) and classification tasks (folders).
DATASETS = (
    "drosophila_melanogaster_chr4.fna.gz",
    "saccharomyces_cerevisiae_chrI.fna.gz",
    "splice_sites_200",
    "coding_vs_intergenic_200",
)


def dataset_path(name: str) -> Path:
    """Absolute path of a packaged file or folder; see `DATASETS`.

    Raises:
        UserError: an unknown name.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r} ({nearest(name, DATASETS)})")
    return _FOLDER / name
