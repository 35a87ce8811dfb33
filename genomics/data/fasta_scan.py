"""One streaming pass over a FASTA file: checks all of it and yields the records of its .fai index."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from ...core.errors import UserError
from ..tokenizer import IUPAC_AMBIGUOUS

_LEGAL = ("ACGTUN" + IUPAC_AMBIGUOUS).encode()
_LEGAL += _LEGAL.lower() + b"\r\n"
GAP = b"-"
_CHUNK = 8 * 2**20


@dataclass
class FastaRecord:
    """One row of a .fai index: ``length`` bases, the first at byte ``offset``, in lines of ``line_bases`` bases and
    ``line_width`` bytes."""

    name: str
    length: int
    offset: int
    line_bases: int
    line_width: int


@dataclass
class _OpenRecord(FastaRecord):
    """A record while its lines come in."""

    header_line: int
    pending: int = field(default=0)  # bytes of the line that the next chunk goes on with
    short_line: int = field(default=0)  # number of the line shorter than those before it: must be the last one


def scan_fasta(stream: BinaryIO, source: Path, *, gaps: bool = False, chunk_size: int = _CHUNK) -> list[FastaRecord]:
    """Check a FASTA stream and return its index, holding one chunk at a time.

    Args:
        stream: uncompressed bytes.
        source: the file that errors name.
        gaps: whether ``-`` is a character of sequences, as in alignments.

    Raises:
        UserError: not FASTA, an illegal character (record and line), a duplicate name, a record without a name or a
            sequence, or lines of uneven length.
    """
    return _Scan(source, _LEGAL + GAP if gaps else _LEGAL).run(stream, chunk_size)


class _Scan:
    def __init__(self, source: Path, legal: bytes) -> None:
        self.source, self.legal = source, legal
        self.records: list[FastaRecord] = []
        self.names: dict[str, int] = {}  # name to the line of its header
        self.line = 1  # number of the line that is being read
        self.record: _OpenRecord | None = None

    def run(self, stream: BinaryIO, chunk_size: int) -> list[FastaRecord]:
        header: bytearray | None = None  # of a header line that is not complete
        line_start, offset = True, 0
        while chunk := stream.read(chunk_size):
            if chunk.endswith(b"\r"):
                chunk += stream.read(1)  # a line end of two bytes is never split
            if offset == 0 and not chunk.startswith(b">"):
                raise UserError(f"{self.source}: not FASTA: the first character is {chr(chunk[0])!r}, expected '>'")
            cursor = 0
            while cursor < len(chunk):
                if header is not None or (line_start and chunk.startswith(b">", cursor)):
                    end = chunk.find(b"\n", cursor)
                    end = len(chunk) if end < 0 else end + 1
                    header = (header or bytearray()) + chunk[cursor:end]
                    line_start = header.endswith(b"\n")
                    if line_start:
                        self._begin(bytes(header), offset + end)
                        header = None
                else:
                    end = chunk.find(b"\n>", cursor)
                    end = len(chunk) if end < 0 else end + 1
                    self._sequence(chunk[cursor:end])
                    line_start = chunk[end - 1] == 10
                cursor = end
            offset += len(chunk)
        if header is not None:
            self._begin(bytes(header), offset)
        if self.record is None:
            raise UserError(f"{self.source}: the file is empty; copy or download it again")
        self._finish()
        return self.records

    def _begin(self, header: bytes, offset: int) -> None:
        """Take a complete header line; ``offset`` is that of the byte after it."""
        self._finish()
        try:
            text = header[1:].decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.source}: line {self.line}: the header is not UTF-8 text; rename it") from error
        if not text.strip() or text[0].isspace():
            raise UserError(f"{self.source}: line {self.line}: a record without a name; write one right after '>'")
        name = text.split(maxsplit=1)[0]
        if name in self.names:
            raise UserError(
                f"{self.source}: line {self.line}: a second record named {name!r} (the first is on line "
                f"{self.names[name]}); rename one of them"
            )
        self.names[name] = self.line
        self.record = _OpenRecord(name, 0, offset, 0, 0, header_line=self.line)
        self.line += 1

    def _sequence(self, block: bytes) -> None:
        """Take sequence bytes of the current record, from anywhere in a line to anywhere in a line."""
        record = self.record
        assert record is not None
        if block.translate(None, self.legal):
            self._illegal(block)
        data = np.frombuffer(block, dtype=np.uint8)
        newlines = np.flatnonzero(data == 10)
        widths = np.diff(newlines, prepend=-1)
        carriage = (data[newlines - 1] == 13) & (newlines > 0)
        if block.count(b"\r") != int(carriage.sum()):
            self._illegal(block)
        if len(newlines):
            widths[0] += record.pending
            self._lines(widths, widths - 1 - carriage)
            record.pending = len(block) - int(newlines[-1]) - 1
        else:
            record.pending += len(block)

    def _lines(self, widths: np.ndarray, bases: np.ndarray) -> None:
        """Take whole lines: all as long as the first of the record, then at most one shorter, then blank ones."""
        record = self.record
        assert record is not None
        if record.line_width == 0:
            record.line_bases, record.line_width = int(bases[0]), int(widths[0])
        if not record.short_line:
            uneven = np.flatnonzero((bases != record.line_bases) | (widths != record.line_width))
            if record.line_bases == 0:
                uneven = np.arange(len(bases))  # a blank line after the header: nothing may follow
            if len(uneven):
                first = int(uneven[0])
                if bases[first] > record.line_bases:
                    self._uneven(self.line + first, int(bases[first]))
                record.short_line = self.line + first
                self._blank_from(self.line + first + 1, bases[first + 1 :])
        else:
            self._blank_from(self.line, bases)
        record.length += int(bases.sum())
        self.line += len(bases)

    def _blank_from(self, line: int, bases: np.ndarray) -> None:
        filled = np.flatnonzero(bases)
        if len(filled):
            assert self.record is not None
            if self.record.line_bases == 0:
                self._uneven(line + int(filled[0]), int(bases[filled[0]]))
            self._uneven(self.record.short_line, None)

    def _finish(self) -> None:
        """Close the current record."""
        record = self.record
        if record is None:
            return
        if record.pending:  # the last line of the file has no line end
            self._lines(np.array([record.pending + 1]), np.array([record.pending]))
            record.pending = 0
        if record.length == 0:
            raise UserError(
                f"{self.source}: line {record.header_line}: record {record.name!r} has no sequence; add it or remove "
                f"the record"
            )
        self.records.append(
            FastaRecord(record.name, record.length, record.offset, record.line_bases, record.line_width)
        )

    def _illegal(self, block: bytes) -> NoReturn:
        assert self.record is not None
        data = np.frombuffer(block, dtype=np.uint8)
        legal = np.isin(data, np.frombuffer(self.legal, dtype=np.uint8))
        legal &= (data != 13) | (np.append(data[1:], 10) == 10)
        index = int(np.flatnonzero(~legal)[0])
        line = self.line + block.count(b"\n", 0, index)
        raise UserError(
            f"{self.source}: record {self.record.name!r}, line {line}: illegal character {chr(block[index])!r}; a "
            f"sequence holds A, C, G, T, U, N and IUPAC codes"
        )

    def _uneven(self, line: int, bases: int | None) -> NoReturn:
        record = self.record
        assert record is not None
        length = f" of {bases} bases" if bases is not None else ""
        raise UserError(
            f"{self.source}: record {record.name!r}, line {line}: a line{length} that differs in length from the first "
            f"({record.line_bases} bases) and is not the last of its record, so it cannot be indexed; reformat the "
            f"file, for example with `seqtk seq -l 60`"
        )
