"""Tables of DNA sequences (TSV, CSV, or FASTA without labels) as compact arrays."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...core.errors import UserError
from ..tokenizer import DNATokenizer
from .files import open_binary, open_text
from .nucleotides import are_nucleotides, no_nucleotide
from .target_columns import TargetReader, is_integer

_DELIMITERS = {".tsv": "\t", ".txt": "\t", ".tab": "\t", ".csv": ","}
_NAME_COLUMNS = ("name", "id")
_FASTA_NAME = re.compile(r"\.(fa|fasta|fna|ffn)(\.b?gz)?$", re.IGNORECASE)


class Records(Protocol):
    """What a data module reads sequences from: a `SequenceTable`, or intervals that are fetched when asked for."""

    @property
    def path(self) -> str:
        """The file or folder, for messages."""

    @property
    def labels(self) -> np.ndarray | None:
        """Class of each record as text (object), None where there are none."""

    @property
    def targets(self) -> np.ndarray | None:
        """Numbers to predict, (records, targets), None where there are none."""

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """Names of the columns of ``targets``."""

    @property
    def names(self) -> np.ndarray:
        """Name of each record (object)."""

    @property
    def lengths(self) -> np.ndarray:
        """int64, characters per sequence."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Ids of sequence ``index``, uint8, without special tokens."""

    def where(self, index: int) -> str:
        """The place of a record, for errors."""

    def check_nucleotides(self, tokenizer: DNATokenizer) -> None:
        """Raise UserError with the place of a record of nothing but N."""

    def select(self, index: np.ndarray) -> Records:
        """The records at ``index``, in that order."""


@dataclass(frozen=True)
class SequenceTable:
    """Sequences of one file, encoded, in the order of the file.

    Attributes:
        path: the file.
        symbols: uint8, ids of all sequences one after the other, without special tokens.
        offsets: int64, of number of sequences + 1; sequence ``i`` is ``symbols[offsets[i]:offsets[i + 1]]``.
        labels: the label column as text, or None where it was not asked for or is absent.
        names: the name column, else FASTA names, else row numbers from 1.
        lines: int64, line of the file on which each record begins.
        targets: numbers to predict, uint8 or float32 (records, targets), or None.
        target_names: names of their columns.
    """

    path: str
    symbols: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    names: np.ndarray
    lines: np.ndarray
    targets: np.ndarray | None = None
    target_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> np.ndarray:
        """Ids of sequence ``index``, a uint8 view."""
        return self.symbols[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """int64, characters per sequence."""
        return np.diff(self.offsets)

    def where(self, index: int) -> str:
        """``file:line`` of a record, for errors."""
        return f"{self.path}:{self.lines[index]}"

    def check_nucleotides(self, tokenizer: DNATokenizer) -> None:
        """Refuse sequences of nothing but N; none may be empty.

        Raises:
            UserError: names the first of them.
        """
        found = np.logical_or.reduceat(are_nucleotides(self.symbols), self.offsets[:-1])
        if not found.all():
            first = int(np.argmin(found))
            raise no_nucleotide(f"{self.where(first)}: record {str(self.names[first])!r}", tokenizer)

    def select(self, index: np.ndarray) -> SequenceTable:
        """The records at ``index``, in that order."""
        parts = [self[i] for i in index]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        symbols = np.concatenate(parts) if parts else self.symbols[:0]
        return replace(
            self,
            symbols=symbols,
            offsets=offsets,
            labels=None if self.labels is None else self.labels[index],
            names=self.names[index],
            lines=self.lines[index],
            targets=None if self.targets is None else self.targets[index],
        )


def read_table(
    path: str | os.PathLike[str],
    tokenizer: DNATokenizer,
    *,
    sequence_column: str = "sequence",
    label_column: str | None = "label",
    label_required: bool = True,
    name_column: str | None = None,
    targets: TargetReader | None = None,
) -> SequenceTable:
    """Read a table with a header line, plain or gzip; the extension says how columns are separated (.tsv, .txt and
    .tab by tabs, .csv by commas with the usual quoting).

    Args:
        label_column: class of the record; None reads none; with ``label_required=False`` the column may be absent.
        targets: reads further columns as numbers; with ``label_required=False`` they may be absent.
        name_column: names of the records; a column ``name`` or ``id`` where None and there is one.

    Raises:
        UserError: with file and line: unknown extension, missing column, no row, a row with another number of columns
            than the header, an empty sequence or label, an illegal character, a truncated gzip file.
    """
    parts: list[np.ndarray] = []
    labels: list[str] = []
    names: list[str] = []
    lines: list[int] = []
    with table_rows(path) as rows:
        header: list[str] = next(rows, [])
        sequence_at = column_place(header, sequence_column, path, "sequence_column")
        label_at = name_at = None
        if label_column is not None and (label_required or label_column in header):
            label_at = column_place(header, label_column, path, "label_column")
        if name_column is not None:
            name_at = column_place(header, name_column, path, "name_column")
        else:
            name_at = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
        if targets is not None and not label_required and not set(targets.columns) & set(header):
            targets = None
        places = [column_place(header, name, path, "label_column") for name in (targets.columns if targets else ())]
        line = rows.line_num + 1
        for row in rows:
            where, line, first = f"{path}:{line}", rows.line_num + 1, line
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{where}: {len(row)} column(s), the header has {len(header)}; correct or remove the row"
                )
            if not row[sequence_at]:
                raise UserError(f"{where}: the sequence is empty; fill in column {sequence_column!r} or remove it")
            parts.append(tokenizer.encode_symbols(row[sequence_at], where=where))
            if label_at is not None:
                if not row[label_at]:
                    raise UserError(f"{where}: the label is empty; fill in column {label_column!r} or remove it")
                labels.append(row[label_at])
            if targets is not None:
                targets.add([row[place] for place in places], where)
            names.append(str(len(parts)) if name_at is None else row[name_at])
            lines.append(first)
    if not parts:
        raise UserError(f"{path}: has a header but no row; is it the right file?")
    table = make_table(path, parts, labels if label_at is not None else None, names, lines)
    if targets is None:
        return table
    return replace(table, targets=targets.finish(str(path)), target_names=targets.names)


def read_fasta_table(path: str | os.PathLike[str], tokenizer: DNATokenizer, *, labelled: bool = False) -> SequenceTable:
    """Read every record of a FASTA file, plain or gzip; lines may have any length.

    Args:
        labelled: headers are ``>name|label``, the label being the integer after the last ``|``, as in the Nucleotide
            Transformer tasks; otherwise the name is the header's first word and there are no labels.

    Raises:
        UserError: not FASTA, a record without a name, a sequence or (where ``labelled``) a label, an illegal character.
    """
    parts: list[np.ndarray] = []
    names: list[str] = []
    labels: list[str] = []
    lines: list[int] = []
    pieces: list[bytes] = []

    def finish() -> None:
        if not names:
            return
        where = f"{path}:{lines[-1]}: record {names[-1]!r}"
        sequence = b"".join(pieces)
        if not sequence:
            raise UserError(f"{where} has no sequence; add it or remove the record")
        parts.append(tokenizer.encode_symbols(sequence, where=where))
        pieces.clear()

    with open_binary(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.startswith(b">"):
                finish()
                header = line[1:].decode("utf-8", errors="replace").strip()
                if not header:
                    raise UserError(f"{path}:{number}: a record without a name; write one after '>'")
                if labelled:
                    header, _, label = header.rpartition("|")
                    if not header or not is_integer(label.strip()):
                        found = line[1:].decode("utf-8", errors="replace").strip()
                        raise UserError(
                            f"{path}:{number}: record {found!r} has no label; its header must be '>name|label' with an "
                            f"integer label"
                        )
                    labels.append(label.strip())
                names.append(header.strip() if labelled else header.split(maxsplit=1)[0])
                lines.append(number)
            elif names:
                pieces.append(line.strip())
            elif line.strip():
                raise UserError(f"{path}:{number}: not FASTA: the first character is {chr(line[0])!r}, expected '>'")
    finish()
    if not parts:
        raise UserError(f"{path}: holds no FASTA record; is it the right file?")
    return make_table(path, parts, labels if labelled else None, names, lines)


def is_fasta(path: str | os.PathLike[str]) -> bool:
    """Whether a file, plain or gzip, begins as FASTA does or is named as such."""
    with open_binary(path) as stream:
        return stream.read(1) == b">" or _FASTA_NAME.search(str(path)) is not None


def make_table(
    path: str | os.PathLike[str],
    parts: Sequence[np.ndarray],
    labels: Sequence[str] | None,
    names: Sequence[str],
    lines: Sequence[int],
) -> SequenceTable:
    """Join encoded sequences to one table; all arguments but ``path`` have one entry for each record."""
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return SequenceTable(
        str(path),
        np.concatenate(parts),
        offsets,
        None if labels is None else np.array(labels, dtype=object),
        np.array(names, dtype=object),
        np.array(lines, dtype=np.int64),
    )


def delimiter_of(path: str | os.PathLike[str]) -> str:
    """What separates the columns of a table, by its extension.

    Raises:
        UserError: an extension that does not say.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    suffix = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if suffix not in _DELIMITERS:
        raise UserError(
            f"{path}: the extension {suffix!r} does not say how columns are separated; name the file .tsv or .csv "
            f"(.gz may follow)"
        )
    return _DELIMITERS[suffix]


def column_place(header: list[str], name: str, path: str | os.PathLike[str], option: str) -> int:
    """The place of a column.

    Args:
        option: what to set where there is none of that name.

    Raises:
        UserError: there is none, or there are two.
    """
    if name not in header:
        raise UserError(f"{path}:1: no column {name!r}; there are: {', '.join(header)}; set {option}")
    if header.count(name) > 1:
        raise UserError(f"{path}:1: two columns are named {name!r}; rename one")
    return header.index(name)


@contextlib.contextmanager
def table_rows(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A ``csv.reader`` of a table, header included, that may have fields of any length.

    Raises:
        UserError: an extension that does not say how columns are separated; with file and line, broken quoting.
    """
    tabs = delimiter_of(path) == "\t"
    # The module's default refuses sequences of more than 131,072 characters.
    before = csv.field_size_limit(sys.maxsize)
    try:
        with open_text(path) as stream:
            rows = (
                csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
                if tabs
                else csv.reader(stream, strict=True)
            )
            try:
                yield rows
            except csv.Error as error:
                raise UserError(f"{path}:{rows.line_num}: cannot be read as a table ({error}); correct it") from error
    finally:
        csv.field_size_limit(before)
