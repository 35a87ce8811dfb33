"""BED and narrowPeak files: the intervals of a genome that a model is trained on or asked about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from .contigs import ContigNames
from .files import known_names, open_text

_TRACK_WORDS = ("track", "browser")
_SPLITS = {"train": "train", "valid": "val", "validation": "val", "val": "val", "test": "test"}
_STRANDS = {"+": 1, "-": -1, ".": 0}


@dataclass(frozen=True)
class Intervals:
    """Intervals as arrays, one entry each: 0-based, half-open.

    Attributes:
        path: the file.
        contigs: distinct contig names; ``contig`` (int32) indexes them.
        start, end: int64.
        labels: distinct values of column 4; ``label`` (int32) indexes them and is -1 where there is no column 4.
        line: int64, line of the file.
        score: float64, column 5; NaN where there is none, or a dot. Read with ``details`` alone, as are the next two.
        strand: int8, column 6: 1 for +, -1 for -, 0 for a dot or none.
        summit: int64, column 10 of narrowPeak, bases from ``start`` to the summit; -1 where none is known.
    """

    path: str
    contigs: tuple[str, ...]
    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray
    labels: tuple[str, ...]
    label: np.ndarray
    line: np.ndarray
    score: np.ndarray
    strand: np.ndarray
    summit: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def name(self, index: int) -> str | None:
        """Column 4 of an interval; ``None`` where there is none, or a dot."""
        label = int(self.label[index])
        return None if label < 0 or self.labels[label] in ("", ".") else self.labels[label]


def read_bed(
    path: str | os.PathLike[str],
    lengths: Mapping[str, int] | None = None,
    *,
    names: ContigNames | None = None,
    details: bool = False,
) -> Intervals:
    """Read a BED file, plain or gzip: at least three tab-separated columns, the optional fourth kept as ``label``.

    ``track`` and ``browser`` lines, comments and blank lines are skipped.

    Args:
        path: the file.
        lengths: contig to length, against which the intervals are checked.
        names: finds the FASTA's contigs under the names of this file; ``contigs`` are then the FASTA's.
        details: read score, strand and summit too. A line of exactly ten columns, which BED itself does not have, is
            narrowPeak; so is every line of a file whose name ends in .narrowPeak (.gz may follow).

    Raises:
        UserError: with file and line: too few columns, a start or end that is no integer or is negative, a start that
            is not before the end, an unknown contig, an end beyond the contig, or no interval at all; with ``details``
            a score that is no number, a strand that is not +, - or a dot, or a summit outside its interval.
    """
    contigs: dict[str, int] = {}
    labels: dict[str, int] = {}
    rows: list[tuple[int, int, int, int, int]] = []
    extra: list[tuple[float, int, int]] = []
    peaks = os.fspath(path).lower().removesuffix(".gz").endswith(".narrowpeak")
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            text = line.rstrip("\r\n")
            if not text.strip() or text.startswith("#") or text.split(maxsplit=1)[0] in _TRACK_WORDS:
                continue
            fields = text.split("\t")
            where = f"{path}:{number}"
            if len(fields) < 3:
                raise UserError(
                    f"{where}: {len(fields)} tab-separated column(s), BED has at least 3 (contig, start, end); "
                    f"separate columns by tabs"
                )
            name, start, end = fields[0], whole_number(fields[1], "start", where), whole_number(fields[2], "end", where)
            if start >= end:
                raise UserError(f"{where}: start {start} is not before end {end}; BED intervals are 0-based, half-open")
            if names is not None:
                name = names.require(name, where)
            if lengths is not None:
                if name not in lengths:
                    raise UserError(f"{where}: contig {name!r} is not in the FASTA ({known_names(name, lengths)})")
                if end > lengths[name]:
                    raise UserError(
                        f"{where}: end {end} lies beyond {name}, which has {lengths[name]} bases; is it another "
                        f"assembly?"
                    )
            label = labels.setdefault(fields[3], len(labels)) if len(fields) > 3 else -1
            rows.append((contigs.setdefault(name, len(contigs)), start, end, label, number))
            extra.append(_details(fields, end - start, peaks, where) if details else (np.nan, 0, -1))
    if not rows:
        raise UserError(f"{path}: holds no interval; a BED line is contig, start, end, separated by tabs")
    table = np.array(rows, dtype=np.int64)
    return Intervals(
        str(path), tuple(contigs), table[:, 0].astype(np.int32), table[:, 1], table[:, 2], tuple(labels),
        table[:, 3].astype(np.int32), table[:, 4], np.array([row[0] for row in extra], dtype=np.float64),
        np.array([row[1] for row in extra], dtype=np.int8), np.array([row[2] for row in extra], dtype=np.int64),
    )  # fmt: skip


def column_split(intervals: Intervals) -> np.ndarray:
    """The split that column 4 names: ``"train"``, ``"val"`` or ``"test"`` for each interval.

    Raises:
        UserError: with file and line: no column 4, or another word.
    """
    for code, label in enumerate(("", *intervals.labels), start=-1):
        rows = np.flatnonzero(intervals.label == code)
        if not len(rows) or label in _SPLITS:
            continue
        where, found = f"{intervals.path}:{intervals.line[rows[0]]}", f"{label!r}" if code >= 0 else "missing"
        raise UserError(
            f"{where}: column 4 is {found}, expected train, valid or test; correct it, or choose another split"
        )
    return np.array([_SPLITS[label] for label in intervals.labels])[intervals.label]


def _details(fields: list[str], length: int, peaks: bool, where: str) -> tuple[float, int, int]:
    """Score, strand and summit of one line."""
    if peaks and len(fields) != 10:
        raise UserError(f"{where}: {len(fields)} columns, narrowPeak has 10; is it a BED file by a wrong name?")
    score, strand, summit = np.nan, 0, -1
    if len(fields) > 4 and fields[4] not in ("", "."):
        try:
            score = float(fields[4])
        except ValueError as error:
            raise UserError(f"{where}: score {fields[4]!r} (column 5) is no number; write one, or a dot") from error
    if len(fields) > 5:
        if fields[5] not in _STRANDS:
            raise UserError(f"{where}: strand {fields[5]!r} (column 6) is not +, - or a dot; correct it")
        strand = _STRANDS[fields[5]]
    if len(fields) == 10 and fields[9] != "-1":
        summit = whole_number(fields[9], "summit", where)
        if summit >= length:
            raise UserError(
                f"{where}: summit {summit} (column 10, bases from the start) lies outside the interval of {length} "
                f"bases; correct it, or write -1"
            )
    return score, strand, summit


def whole_number(text: str, column: str, where: str) -> int:
    """The number from 0 in a column; raises UserError with the place."""
    if not text.isdecimal():
        raise UserError(f"{where}: {column} {text!r} is not a whole number from 0; correct it")
    return int(text)
