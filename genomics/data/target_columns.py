"""Cells of a table as numbers: values to predict, 0/1 columns, or a column that lists labels. No Python object is kept
for a cell, so that a table of millions of rows with 919 labels (as DeepSEA's) fits in memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from ...core.errors import UserError, nearest

#: What is predicted: one of several classes, any number of labels, or numbers.
TargetKind = Literal["class", "labels", "values"]
#: In a column that lists labels: a record without any.
NO_LABEL = "."


class TargetReader(Protocol):
    """Takes the target cells of one record after the other."""

    columns: tuple[str, ...]
    """Columns to read, by name."""
    names: tuple[str, ...] | None
    """Names of the targets; of listed labels they may be known only after the last record."""

    def add(self, cells: Sequence[str], where: str) -> None:
        """Take the cells of one record."""

    def finish(self, path: str) -> np.ndarray:
        """Return the targets, (records, targets); ``path`` is the file, for messages."""


class ValueColumns:
    """Columns of numbers, as float32 (records, columns)."""

    def __init__(self, columns: Sequence[str], names: Sequence[str] | None = None) -> None:
        self.columns = tuple(columns)
        self.names: tuple[str, ...] | None = tuple(names or columns)
        self._values = array("f")

    def add(self, cells: Sequence[str], where: str) -> None:
        """Take one number for each column.

        Raises:
            UserError: a cell that is no finite number.
        """
        for column, cell in zip(self.columns, cells, strict=True):
            try:
                value = float(cell)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise UserError(f"{where}: {cell!r} in column {column!r} is no number; correct it or remove the record")
            self._values.append(value)

    def finish(self, path: str) -> np.ndarray:
        return np.frombuffer(self._values, dtype=np.float32).reshape(-1, len(self.columns)).copy()


class BinaryColumns:
    """Columns that are 1 where the record has the label and 0 where not, as uint8 (records, columns)."""

    def __init__(self, columns: Sequence[str], names: Sequence[str] | None = None) -> None:
        self.columns = tuple(columns)
        self.names: tuple[str, ...] | None = tuple(names or columns)
        self._values = bytearray()

    def add(self, cells: Sequence[str], where: str) -> None:
        """Take 0 or 1 for each column.

        Raises:
            UserError: a cell that is neither.
        """
        try:
            row = bytes([("0", "1").index(cell) for cell in cells])
        except ValueError:
            column = next(column for column, cell in zip(self.columns, cells, strict=True) if cell not in ("0", "1"))
            found = cells[self.columns.index(column)]
            raise UserError(f"{where}: {found!r} in label column {column!r} is neither 0 nor 1; correct it") from None
        self._values += row

    def finish(self, path: str) -> np.ndarray:
        return np.frombuffer(self._values, dtype=np.uint8).reshape(-1, len(self.columns)).copy()


class LabelLists:
    """One column that lists a record's labels, separated by ``;`` or ``,``, as uint8 (records, labels).

    A record without any label is written ``.``; an empty cell is an error, because it may as well be a missing one.

    Args:
        column: its name.
        names: the labels in the order of their indices; where None, those that occur, sorted (numbers as numbers).
    """

    def __init__(self, column: str, names: Sequence[str] | None = None) -> None:
        self.columns: tuple[str, ...] = (column,)
        self.names: tuple[str, ...] | None = None if names is None else tuple(names)
        self._index = {name: index for index, name in enumerate(names or ())}
        self._labels = array("i")
        self._ends = array("q", [0])

    def add(self, cells: Sequence[str], where: str) -> None:
        """Take a list of labels.

        Raises:
            UserError: an empty cell or list entry, a label twice, or one that is not among the given names.
        """
        (cell,) = cells
        if not cell.strip():
            raise UserError(
                f"{where}: column {self.columns[0]!r} is empty; a record without labels has '{NO_LABEL}' there"
            )
        labels = [] if cell.strip() == NO_LABEL else [label.strip() for label in cell.replace(";", ",").split(",")]
        for number, label in enumerate(labels):
            if not label or label in labels[:number]:
                raise UserError(
                    f"{where}: {cell!r} has {'an empty label' if not label else f'{label!r} twice'}; correct it"
                )
            if self.names is not None and label not in self._index:
                raise UserError(
                    f"{where}: label {label!r} is not among those of the training data; {nearest(label, self.names)}"
                )
            self._labels.append(self._index.setdefault(label, len(self._index)))
        self._ends.append(len(self._labels))

    def finish(self, path: str) -> np.ndarray:
        """Return the targets and set ``names``.

        Raises:
            UserError: no record has a label.
        """
        column = (
            np.frombuffer(self._labels, dtype=np.int32).copy() if len(self._labels) else np.zeros(0, dtype=np.int32)
        )
        if self.names is None:
            if not self._index:
                raise UserError(f"{path}: no record has a label in column {self.columns[0]!r}; is it the right column?")
            self.names = tuple(sorted_labels(list(self._index)))
            order = {name: place for place, name in enumerate(self.names)}
            column = np.array([order[name] for name in self._index], dtype=np.int32)[column]
        ends = np.frombuffer(self._ends, dtype=np.int64)
        counts = ends[1:] - ends[:-1]
        matrix = np.zeros((len(counts), len(self.names)), dtype=np.uint8)
        matrix[np.repeat(np.arange(len(counts)), counts), column] = 1
        return matrix


def target_reader(
    kind: TargetKind, column: str, columns: Sequence[str] | None, names: Sequence[str] | None
) -> TargetReader | None:
    """Return what reads the targets of ``kind``, None for classes, which stay text until all of them are known.

    Args:
        kind: what is predicted.
        column: the one column where ``columns`` is None.
        columns: several columns, of numbers or of 0 and 1.
        names: names of the targets; those of the columns, or the labels that occur, where None.
    """
    if kind == "class":
        return None
    if kind == "values":
        return ValueColumns(columns or [column], names)
    return LabelLists(column, names) if columns is None else BinaryColumns(columns, names)


def is_integer(text: str) -> bool:
    """Whether ``text`` is a whole number, signed or not."""
    return text.lstrip("+-").isdecimal() and len(text) - len(text.lstrip("+-")) < 2 and text.isascii()


def sorted_labels(labels: Sequence[str]) -> list[str]:
    """Distinct labels in order; as numbers if all are integers, otherwise as text."""
    values = sorted(set(labels))
    return sorted(values, key=int) if all(map(is_integer, values)) else values
