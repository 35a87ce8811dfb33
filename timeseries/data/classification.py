"""Training on UCR and UEA archives: series with a class, of any length, of one or many channels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.errors import UserError
from ...core.training.data import ResumableDataModule, SampleKey
from ...core.training.hold_out import chosen_rows
from .labelled import LabelledSeries, read_ts


def problem_files(source: str | os.PathLike[str]) -> tuple[Path, Path | None]:
    """Return the official training and test file of a problem; the test file is None where there is none.

    Args:
        source: ``NAME_TRAIN.ts``, beside which ``NAME_TEST.ts`` is looked for, or a folder ``NAME`` that holds them.

    Raises:
        UserError: a folder without such files; lists the ``.ts`` files that it has.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = path / f"{path.resolve().name}_TRAIN.ts"
        if not found.is_file():
            there = sorted(one.name for one in path.glob("*.ts"))
            raise UserError(f"{path}: has no {found.name}; name a file, of {', '.join(there) or 'no .ts file there'}")
        path = found
    test = path.with_name(path.name.replace("_TRAIN", "_TEST"))
    return path, test if test != path and test.is_file() else None


def check_alike(data: LabelledSeries, train: LabelledSeries) -> None:
    """Refuse series that a model of ``train`` cannot read.

    Raises:
        UserError: another number of channels, or a class that training does not have.
    """
    if data.channels != train.channels:
        raise UserError(f"{data.source}: its series have {data.channels} channels, those of {train.source} "
                        f"{train.channels}; give files of one problem")  # fmt: skip
    for number, index in enumerate([] if data.labels is None else data.labels, start=1):
        if data.class_names[index] not in train.class_names:
            raise UserError(
                f"{data.source}: class {data.class_names[index]!r} of series {number} is none of {train.source}, which "
                f"has {', '.join(train.class_names)}"
            )


def class_indices(data: LabelledSeries, names: tuple[str, ...]) -> np.ndarray | None:
    """Return the class of each series as an index into ``names``, int64; None where the file has no classes."""
    if data.labels is None or not data.class_names:
        return None
    return np.array([names.index(data.class_names[index]) for index in data.labels], dtype=np.int64)


def read_classes(source: str | os.PathLike[str]) -> LabelledSeries:
    """Read a ``.ts`` file of at least two classes.

    Raises:
        UserError: what `read_ts` refuses, a regression problem, or a single class.
    """
    data = read_ts(source)
    if not data.class_names or data.labels is None:
        raise UserError(f"{data.source}: has no classes to learn; its header must say @classLabel true")
    present = [data.class_names[index] for index in np.unique(data.labels)]
    if len(present) < 2:
        raise UserError(f"{data.source}: only one class, {present[0]!r}; classification needs at least two")
    return data


def padded(values: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Stack series of unequal lengths.

    Returns:
        float64 (series, longest, channels), 0 behind a series and NaN where missing, and bool (series, longest), False
        behind a series.
    """
    longest = max(len(one) for one in values)
    inputs = np.zeros((len(values), longest, values[0].shape[1]))
    mask = np.zeros((len(values), longest), dtype=bool)
    for row, one in enumerate(values):
        inputs[row, : len(one)] = one
        mask[row, : len(one)] = True
    return torch.from_numpy(inputs), torch.from_numpy(mask)


class SeriesDataset(Dataset):
    """Some of a file's series: ``{"values": float64 (time, channels), "label": int, "index": int}``."""

    def __init__(self, data: LabelledSeries, rows: np.ndarray, labels: np.ndarray | None) -> None:
        self.data, self.rows, self.labels = data, rows, labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        index = key.index if isinstance(key, SampleKey) else key
        row = int(self.rows[index])
        sample: dict[str, Any] = {"values": self.data.values[row], "index": index, "name": str(row + 1)}
        if self.labels is not None:
            sample["label"] = int(self.labels[row])
        return sample


class SeriesClassificationDataModule(ResumableDataModule):
    """Series with a class, in the official split; validation is taken from training.

    A batch is ``{"input_ids": float64 (batch, time, channels), in units of the data, 0 behind a series and NaN where
    missing, "mask": bool (batch, time), False behind a series, "labels": int64 (batch,), "index": int64 (batch,),
    "name": numbers of the series in their file, from 1}``. Prediction has no labels.

    Args:
        train: ``NAME_TRAIN.ts``, or a folder ``NAME`` with it.
        test: file; ``NAME_TEST.ts`` beside the training file where None.
        predict: file; that of the test where None.
        val_fraction: share of the training series of each class held out for validation; 0 holds out none.
        options: those of `ResumableDataModule`.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the files.
    """

    def __init__(
        self,
        train: str,
        test: str | None = None,
        predict: str | None = None,
        val_fraction: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 <= val_fraction < 1:
            raise UserError(f"val_fraction={val_fraction:g} must be at least 0 and below 1")
        self.train, self.test, self.predict, self.val_fraction = train, test, predict, val_fraction
        self._data: LabelledSeries | None = None

    @property
    def data(self) -> LabelledSeries:
        """The training file, read once."""
        if self._data is None:
            self._data = read_classes(problem_files(self.train)[0])
        return self._data

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their indices."""
        return list(self.data.class_names)

    @property
    def channels(self) -> int:
        """Channels of a series."""
        return self.data.channels

    def longest_sample(self) -> int:
        """Return the steps of the longest series of the training file."""
        return int(self.data.lengths.max())

    def training_rows(self) -> np.ndarray:
        """Return every step of the series that are trained on, float64 (steps, channels), NaN where missing."""
        return np.concatenate([self.data.values[row] for row in self.train_set.rows])

    def setup(self, stage: str | None = None) -> None:
        """Read the files and hold out validation series.

        Raises:
            UserError: see the class.
        """
        assert self.data.labels is not None
        held = np.zeros(len(self.data), dtype=bool)
        if self.val_fraction:
            held = chosen_rows(self.data.labels, self.val_fraction, self.seed)
        self.train_set = SeriesDataset(self.data, np.flatnonzero(~held), self.data.labels)
        self.val_set = SeriesDataset(self.data, np.flatnonzero(held), self.data.labels) if held.any() else None
        test = self.test if self.test is not None else problem_files(self.train)[1]
        self.test_set = None
        if test is not None:
            self.test_set = self._read(test)
            if self.test_set.labels is None and stage == "test":
                raise UserError(f"{test}: has no classes to compare with; use the verb predict")
        self.predict_set = self.test_set if self.predict is None else self._read(self.predict)

    def _read(self, path: str | os.PathLike[str]) -> SeriesDataset:
        data = read_ts(path)
        check_alike(data, self.data)
        return SeriesDataset(data, np.arange(len(data)), class_indices(data, self.data.class_names))

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad samples to one batch."""
        inputs, mask = padded([sample["values"] for sample in samples])
        batch: dict[str, Any] = {"input_ids": inputs, "mask": mask}
        batch["index"] = torch.tensor([sample["index"] for sample in samples])
        batch["name"] = [sample["name"] for sample in samples]
        if "label" in samples[0]:
            batch["labels"] = torch.tensor([sample["label"] for sample in samples])
        return batch
