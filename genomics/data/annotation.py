"""GTF and GFF3: what lies where on a genome.

Both count from 1 and include the end; `Feature` is 0-based and half-open. A GTF's CDS rows end before the stop codon,
a GFF3's include it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import numpy as np

from ...core.errors import UserError
from .files import open_text

_GTF_ATTRIBUTE = re.compile(r'\s*([^\s";=]+) +(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))\s*(?:;|$)')
Attributes = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of an annotation.

    Attributes:
        contig, source, type: columns 1 to 3.
        start, end: 0-based, half-open.
        score: ``None`` where the file has ``.``.
        strand: ``+``, ``-``, ``.`` or, in GFF3, ``?``.
        phase: bases to the first whole codon, in the direction of the strand; ``None`` where the file has ``.``.
        attributes: every value of every key, in the order of the file.
        line: line of the file.
    """

    contig: str
    source: str
    type: str
    start: int
    end: int
    score: float | None
    strand: str
    phase: int | None
    attributes: Attributes
    line: int

    def attribute(self, key: str) -> str | None:
        """Return the first value of a key, ``None`` where there is none."""
        values = self.attributes.get(key)
        return values[0] if values else None


def read_annotation(path: str | os.PathLike[str], format: Literal["auto", "gtf", "gff3"] = "auto") -> Iterator[Feature]:
    """Yield the rows of a GTF or GFF3 file, plain, gzip or bgzip; a GFF3's ``##FASTA`` part ends it.

    Args:
        path: the file.
        format: ``"auto"`` goes by the name (.gtf, .gff, .gff3), then by ``##gff-version 3``.

    Raises:
        UserError: with file and line: not nine columns, bad coordinates, strand, phase, score or attributes; or a
            format that cannot be told.
    """
    with open_text(path) as stream:
        chosen: str = _format_of_name(path) if format == "auto" else format
        for number, line in enumerate(stream, start=1):
            text = line.rstrip("\r\n")
            if text.startswith("##gff-version") and text.split()[1:] == ["3"] and format == "auto":
                chosen = "gff3"
            if text.startswith("##FASTA") and chosen == "gff3":
                return
            if not text.strip() or text.startswith("#"):
                continue
            if not chosen:
                raise UserError(f"{path}: neither named .gtf, .gff or .gff3 nor marked ##gff-version 3; rename it")
            yield _feature(text, number, f"{path}:{number}", chosen)


def _format_of_name(path: str | os.PathLike[str]) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() not in (".gz", ".bgz")]
    return {".gtf": "gtf", ".gff3": "gff3", ".gff": "gff3"}.get(suffixes[-1] if suffixes else "", "")


def _feature(text: str, number: int, where: str, format: str) -> Feature:
    fields = text.split("\t")
    if len(fields) != 9:
        raise UserError(f"{where}: {len(fields)} tab-separated column(s), {format.upper()} has 9; correct the line")
    contig, source, kind, first, last, score, strand, phase, attributes = fields
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UserError(f"{where}: start {first!r} and end {last!r} are not 1 <= start <= end; correct them")
    if strand not in ("+", "-", ".", "?"):
        raise UserError(f"{where}: strand {strand!r} is not +, - or .; correct it")
    if phase not in ("0", "1", "2", "."):
        raise UserError(f"{where}: phase {phase!r} is not 0, 1, 2 or .; correct it")
    try:
        value = None if score == "." else float(score)
    except ValueError as error:
        raise UserError(f"{where}: score {score!r} is not a number or .; correct it") from error
    if format == "gff3":
        contig, source, kind = unquote(contig), unquote(source), unquote(kind)
    parse = _gtf_attributes if format == "gtf" else _gff3_attributes
    return Feature(
        contig, source, kind, int(first) - 1, int(last), value, strand, None if phase == "." else int(phase),
        parse(attributes, where), number,
    )  # fmt: skip


def _gtf_attributes(text: str, where: str) -> Attributes:
    """Parse ``key "value"; key 1;``; a key may be repeated."""
    found: Attributes = {}
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _GTF_ATTRIBUTE.match(text, position)
        if match is None:
            raise UserError(
                f'{where}: attribute {text[position:].strip()[:40]!r} is not of the form key "value"; correct it'
            )
        value = match[2] if match[2] is not None else match[3]
        found[match[1]] = (*found.get(match[1], ()), value)
        position = match.end()
    return found


def _gff3_attributes(text: str, where: str) -> Attributes:
    """Parse ``key=value,value;key=value`` with percent-encoded keys and values."""
    found: Attributes = {}
    for part in text.strip().split(";"):
        if not part.strip() or text.strip() == ".":
            continue
        key, equals, values = part.strip().partition("=")
        if not equals or not key or "=" in values:
            raise UserError(f"{where}: attribute {part.strip()[:40]!r} is not of the form key=value; correct it")
        found[unquote(key)] = (*found.get(unquote(key), ()), *map(unquote, values.split(",")))
    return found


@dataclass(frozen=True)
class CodingSequence:
    """The CDS rows of one transcript, in the direction of translation.

    Attributes:
        transcript: ``transcript_id`` of a GTF, ``Parent`` of a GFF3.
        contig, strand: of all its rows; strand is ``+`` or ``-``.
        parts: the rows; the first one holds the first codon.
    """

    transcript: str
    contig: str
    strand: str
    parts: tuple[Feature, ...]

    def positions(self) -> np.ndarray:
        """Return the 0-based genome position of every base from the first whole codon on, int64, as translated."""
        step = 1 if self.strand == "+" else -1
        bases = np.concatenate([np.arange(part.start, part.end)[::step] for part in self.parts])
        return bases[self.parts[0].phase or 0 :]

    @property
    def in_frame(self) -> bool:
        """Whether every part's phase continues the codon that the parts before it left open."""
        before = -(self.parts[0].phase or 0)
        for part in self.parts:
            if part.phase is not None and (before + part.phase) % 3:
                return False
            before += part.end - part.start
        return True


def coding_sequences(features: Iterable[Feature]) -> list[CodingSequence]:
    """Group CDS rows by transcript (contig and strand included), in the order in which the transcripts begin.

    Rows without a transcript or strand belong to none. A GTF's sequences end before the stop codon, a GFF3's with it.
    """
    groups: dict[tuple[str, str, str], list[Feature]] = {}
    for feature in features:
        if feature.type != "CDS" or feature.strand not in ("+", "-"):
            continue
        names = feature.attributes.get("transcript_id") or feature.attributes.get("Parent") or ()
        for name in filter(None, names):
            groups.setdefault((name, feature.contig, feature.strand), []).append(feature)
    return [
        CodingSequence(name, contig, strand, tuple(sorted(parts, key=lambda part: part.start, reverse=strand == "-")))
        for (name, contig, strand), parts in groups.items()
    ]
