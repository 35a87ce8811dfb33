"""GUE, the tasks of DNABERT-2 (Zhou et al. 2023, arXiv:2306.15006): train.csv, dev.csv and test.csv in a folder."""

from __future__ import annotations

from typing import Any

from ....core.errors import UserError
from ..classification import SequenceTableDataModule
from .folders import existing_folder

_FILES = {"train": "train.csv", "val": "dev.csv", "test": "test.csv"}


class GUEDataModule(SequenceTableDataModule):
    """One task of GUE: ``train.csv``, ``dev.csv`` (validation: choose the model on it) and ``test.csv``, each with the
    columns ``sequence`` and ``label``.

    Args:
        folder: the folder of the task, or of GUE.
        task: the task in it, as ``EMP/H3`` or ``prom/prom_300_all``; None if ``folder`` is that of the task.
        options: those of `SequenceTableDataModule`.

    Raises:
        UserError: no such folder, or one of the files is missing; in ``setup``, anything wrong with the files.
    """

    def __init__(self, folder: str, task: str | None = None, **options: Any) -> None:
        place = existing_folder(folder, task)
        paths = {name: place / file for name, file in _FILES.items()}
        for path in paths.values():
            if not path.is_file() and not path.with_name(f"{path.name}.gz").is_file():
                raise UserError(f"{path}: no such file; a task of GUE has train.csv, dev.csv and test.csv")
        files = {name: str(path if path.is_file() else f"{path}.gz") for name, path in paths.items()}
        super().__init__(train_file=files["train"], val_file=files["val"], test_file=files["test"], **options)
