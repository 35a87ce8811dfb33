"""BED files: the intervals of a genome that a model is trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from .files import known_names, open_text


@dataclass(frozen=True)
class Intervals:
    """Intervals as arrays, one entry each: 0-based, half-open.

    Attributes:
        path: the file.
        contigs: distinct contig names; ``contig`` (int32) indexes them.
        start, end: int64.
        labels: distinct values of column 4; ``label`` (int32) indexes them and is -1 where there is no column 4.
        line: int64, line of the file.
    """

    path: str
    contigs: tuple[str, ...]
    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray
    labels: tuple[str, ...]
    label: np.ndarray
    line: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


def read_bed(path: str | os.PathLike[str], lengths: Mapping[str, int] | None = None) -> Intervals:
    """Read a BED file, plain or gzip: at least three tab-separated columns, the optional fourth kept as ``label``.

    ``track`` and ``browser`` lines, comments and blank lines are skipped.

    Args:
        path: the file.
        lengths: contig to length, against which the intervals are checked.

    Raises:
        UserError: with file and line: too few columns, a start or end that is no integer or is negative, a start that
            is not before the end, an unknown contig, an end beyond the contig, or no interval at all.
    """
    contigs: dict[str, int] = {}
    labels: dict[str, int] = {}
    rows: list[tuple[int, int, int, int, int]] = []
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            text = line.rstrip("\r\n")
            if not text.strip() or text.startswith("#") or text.split(maxsplit=1)[0] in ("track", "browser"):
                continue
            fields = text.split("\t")
            where = f"{path}:{number}"
            if len(fields) < 3:
                raise UserError(
                    f"{where}: {len(fields)} tab-separated column(s), BED has at least 3 (contig, start, end); "
                    f"separate columns by tabs"
                )
            name, start, end = fields[0], _integer(fields[1], "start", where), _integer(fields[2], "end", where)
            if start >= end:
                raise UserError(f"{where}: start {start} is not before end {end}; BED intervals are 0-based, half-open")
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
    if not rows:
        raise UserError(f"{path}: holds no interval; a BED line is contig, start, end, separated by tabs")
    table = np.array(rows, dtype=np.int64)
    return Intervals(
        str(path), tuple(contigs), table[:, 0].astype(np.int32), table[:, 1], table[:, 2], tuple(labels),
        table[:, 3].astype(np.int32), table[:, 4],
    )  # fmt: skip


def _integer(text: str, column: str, where: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{where}: {column} {text!r} is not a whole number from 0; correct it")
    return int(text)
