"""Tables of DNA sequences (TSV, CSV, or FASTA without labels) as compact arrays."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ..tokenizer import DNATokenizer
from .files import open_binary, open_text

_DELIMITERS = {".tsv": "\t", ".txt": "\t", ".tab": "\t", ".csv": ","}
_NAME_COLUMNS = ("name", "id")
_FASTA_NAME = re.compile(r"\.(fa|fasta|fna|ffn)(\.b?gz)?$", re.IGNORECASE)


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
    """

    path: str
    symbols: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    names: np.ndarray
    lines: np.ndarray

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

    def select(self, index: np.ndarray) -> SequenceTable:
        """The records at ``index``, in that order."""
        parts = [self[i] for i in index]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        symbols = np.concatenate(parts) if parts else self.symbols[:0]
        labels = None if self.labels is None else self.labels[index]
        return SequenceTable(self.path, symbols, offsets, labels, self.names[index], self.lines[index])


def read_table(
    path: str | os.PathLike[str],
    tokenizer: DNATokenizer,
    *,
    sequence_column: str = "sequence",
    label_column: str | None = "label",
    label_required: bool = True,
    name_column: str | None = None,
) -> SequenceTable:
    """Read a table with a header line, plain or gzip; the extension says how columns are separated (.tsv, .txt and
    .tab by tabs, .csv by commas with the usual quoting).

    Args:
        label_column: None reads no labels; with ``label_required=False`` the column may be absent.
        name_column: names of the records; a column ``name`` or ``id`` where None and there is one.

    Raises:
        UserError: with file and line: unknown extension, missing column, no row, a row with another number of columns
            than the header, an empty sequence or label, an illegal character, a truncated gzip file.
    """
    delimiter = _delimiter(path)
    parts: list[np.ndarray] = []
    labels: list[str] = []
    names: list[str] = []
    lines: list[int] = []
    with open_text(path) as stream, _long_fields():
        tabs = delimiter == "\t"
        rows = csv.reader(
            stream, delimiter=delimiter, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, strict=True
        )
        try:
            header = next(rows, [])
            sequence_at = _column(header, sequence_column, path, "sequence_column")
            label_at = name_at = None
            if label_column is not None and (label_required or label_column in header):
                label_at = _column(header, label_column, path, "label_column")
            if name_column is not None:
                name_at = _column(header, name_column, path, "name_column")
            else:
                name_at = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
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
                names.append(str(len(parts)) if name_at is None else row[name_at])
                lines.append(first)
        except csv.Error as error:
            raise UserError(f"{path}:{rows.line_num}: cannot be read as a table ({error}); correct it") from error
    if not parts:
        raise UserError(f"{path}: has a header but no row; is it the right file?")
    return _table(path, parts, labels if label_at is not None else None, names, lines)


def read_fasta_table(path: str | os.PathLike[str], tokenizer: DNATokenizer) -> SequenceTable:
    """Read every record of a FASTA file, plain or gzip, as an unlabelled table; lines may have any length.

    Raises:
        UserError: not FASTA, a record without a name or a sequence, an illegal character.
    """
    parts: list[np.ndarray] = []
    names: list[str] = []
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
                words = line[1:].decode("utf-8", errors="replace").split(maxsplit=1)
                if not words:
                    raise UserError(f"{path}:{number}: a record without a name; write one after '>'")
                names.append(words[0])
                lines.append(number)
            elif names:
                pieces.append(line.strip())
            elif line.strip():
                raise UserError(f"{path}:{number}: not FASTA: the first character is {chr(line[0])!r}, expected '>'")
    finish()
    if not parts:
        raise UserError(f"{path}: holds no FASTA record; is it the right file?")
    return _table(path, parts, None, names, lines)


def is_fasta(path: str | os.PathLike[str]) -> bool:
    """Whether a file, plain or gzip, begins as FASTA does or is named as such."""
    with open_binary(path) as stream:
        return stream.read(1) == b">" or _FASTA_NAME.search(str(path)) is not None


def _table(
    path: str | os.PathLike[str],
    parts: list[np.ndarray],
    labels: list[str] | None,
    names: list[str],
    lines: list[int],
) -> SequenceTable:
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return SequenceTable(
        str(path),
        np.concatenate(parts),
        offsets,
        None if labels is None else np.array(labels, dtype=object),
        np.array(names, dtype=object),
        np.array(lines, dtype=np.int64),
    )


def _delimiter(path: str | os.PathLike[str]) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    suffix = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if suffix not in _DELIMITERS:
        raise UserError(
            f"{path}: the extension {suffix!r} does not say how columns are separated; name the file .tsv or .csv "
            f"(.gz may follow)"
        )
    return _DELIMITERS[suffix]


def _column(header: list[str], name: str, path: str | os.PathLike[str], option: str) -> int:
    if name not in header:
        raise UserError(f"{path}:1: no column {name!r}; there are: {', '.join(header)}; set {option}")
    if header.count(name) > 1:
        raise UserError(f"{path}:1: two columns are named {name!r}; rename one")
    return header.index(name)


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read fields of any length: its default refuses sequences of more than 131,072 characters."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
