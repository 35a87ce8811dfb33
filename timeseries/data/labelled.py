"""The UCR and UEA archives' ``.ts`` files: whole series with a class or a number."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from ...core.files import require_file


@dataclass(frozen=True)
class LabelledSeries:
    """Series, each with a label.

    Args:
        name: of the problem.
        values: float64 (time, channels) each, NaN where missing; lengths may differ.
        labels: class index int64 (series,), or target float64 (series,); None where the file has none.
        class_names: in the order of their indices; empty for a regression problem.
        source: file.
    """

    name: str
    values: tuple[np.ndarray, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.values)

    @property
    def lengths(self) -> np.ndarray:
        """Length of each series, int64 (series,)."""
        return np.array([len(one) for one in self.values])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.values[0].shape[1]


def read_ts(path: str | os.PathLike[str]) -> LabelledSeries:
    """Read a ``.ts`` file: channels apart by ``:``, values by ``,``, ``?`` or ``NaN`` missing, the label last.

    Raises:
        UserError: a malformed header or line, stamps beside the values, an unknown class; names the line.
    """
    path = require_file(path)
    header: dict[str, list[str]] = {}
    values: list[np.ndarray] = []
    labels: list[str] = []
    in_data = False
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        line = line.strip()
        place = f"{path}: line {number}"
        if not line or line.startswith(("#", "%")):
            continue
        if line.startswith("@"):
            key, *rest = line[1:].split()
            in_data = in_data or key.lower() == "data"
            header[key.lower()] = rest
            continue
        if not in_data:
            raise UserError(f"{place}: values before @data; add the line @data")
        if _is(header, "timestamps"):
            raise UserError(f"{place}: series with stamps of their own are not supported; write values alone")
        parts = line.split(":")
        if _labelled(header):
            labels.append(parts.pop().strip())
        if not parts:
            raise UserError(f"{place}: {line!r} has a label and no values; write values, then : and the label")
        values.append(_channels(parts, place, values[0].shape[1] if values else None))
    if not values:
        raise UserError(f"{path}: it has no series after @data")
    names: tuple[str, ...] = ()
    found: np.ndarray | None = None
    if _is(header, "classlabel"):
        names = tuple(header["classlabel"][1:]) or tuple(sorted(set(labels)))
        unknown = next((label for label in labels if label not in names), None)
        if unknown is not None:
            raise UserError(f"{path}: class {unknown!r} of series {labels.index(unknown) + 1} is not in @classLabel")
        found = np.array([names.index(label) for label in labels], dtype=np.int64)
    elif _is(header, "targetlabel"):
        try:
            found = np.array([float(label) for label in labels])
        except ValueError as error:
            raise UserError(f"{path}: a target is no number ({error})") from error
    name = " ".join(header.get("problemname", [])) or path.stem
    return LabelledSeries(name, tuple(values), found, names, str(path))


def _is(header: dict[str, list[str]], key: str) -> bool:
    return bool(header.get(key)) and header[key][0].lower() == "true"


def _labelled(header: dict[str, list[str]]) -> bool:
    return _is(header, "classlabel") or _is(header, "targetlabel")


def _channels(parts: list[str], place: str, expected: int | None) -> np.ndarray:
    if expected is not None and len(parts) != expected:
        raise UserError(f"{place}: {len(parts)} channels, the series before have {expected}")
    columns = []
    for channel, part in enumerate(parts, start=1):
        column = []
        for text in part.split(","):
            try:
                column.append(np.nan if text.strip() == "?" else float(text))
            except ValueError as error:
                raise UserError(f"{place}: channel {channel}: {text.strip()!r} is neither a number nor ?") from error
        columns.append(column)
    if len({len(column) for column in columns}) > 1:
        raise UserError(f"{place}: channels of lengths {', '.join(str(len(c)) for c in columns)}; they must be equal")
    result = np.array(columns).T
    if np.isinf(result).any():
        raise UserError(f"{place}: a value is infinite; values must be finite, or ? where missing")
    return np.ascontiguousarray(result)
