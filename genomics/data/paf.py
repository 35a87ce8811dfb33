"""PAF files: how minimap2 says which bases of two genomes belong together (Li 2018, and minimap2's manual page)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from .bed import whole_number
from .files import known_names, open_text

_COLUMNS = 12
_STEP = re.compile(r"(\d+)([MIDN=X])")
_CIGAR = re.compile(r"(?:\d+[MIDN=X])+")


@dataclass(frozen=True)
class Alignment:
    """One primary alignment of a stretch of a query with one of a target; positions are 0-based.

    Attributes:
        query, target: names of the records.
        query_start, query_end, target_start: of the stretches, on the forward strands.
        reverse: the query's reverse complement is aligned, so its bases are paired from ``query_end`` down.
        matches: bases that are the same.
        mapping_quality: -10 log10 of the probability that the place is wrong; 255 where unknown.
        steps: letters of the CIGAR, (n,) uint8: M, = and X pair bases, I are bases of the query alone, D and N of the
            target alone.
        lengths: bases of each step, (n,) int64.
    """

    query: str
    query_start: int
    query_end: int
    reverse: bool
    target: str
    target_start: int
    matches: int
    mapping_quality: int
    steps: np.ndarray
    lengths: np.ndarray


def read_paf(path: str | os.PathLike[str], queries: Mapping[str, int], targets: Mapping[str, int]) -> list[Alignment]:
    """Read the primary alignments of a PAF file, plain or gzip, in its order.

    Args:
        path: the file; its alignments need their CIGAR (``minimap2 -c``).
        queries: record to length, of the FASTA that was aligned (minimap2's second file).
        targets: record to length, of the FASTA that it was aligned with (minimap2's first file).

    Raises:
        UserError: with file and line: too few columns, a number that is none, a record that a FASTA lacks or that has
            another length there, no CIGAR, or one that does not cover its stretches; or no primary alignment at all.
    """
    result = []
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            alignment = _alignment(line.rstrip("\r\n").split("\t"), f"{path}:{number}", queries, targets)
            if alignment is not None:
                result.append(alignment)
    if not result:
        raise UserError(f"{path}: holds no primary alignment; are the two genomes related?")
    return result


def _alignment(
    fields: list[str], where: str, queries: Mapping[str, int], targets: Mapping[str, int]
) -> Alignment | None:
    """The alignment of one line; None where it is a secondary one."""
    if len(fields) < _COLUMNS:
        raise UserError(
            f"{where}: {len(fields)} tab-separated column(s), PAF has at least {_COLUMNS}; is it another file?"
        )
    tags = {field[:5]: field[5:] for field in fields[_COLUMNS:]}
    if tags.get("tp:A:", "P") not in ("P", "p"):
        return None
    query, target, strand = fields[0], fields[5], fields[4]
    query_length, query_start, query_end, target_length, target_start, target_end, matches, quality = (
        whole_number(fields[column], f"column {column + 1}", where) for column in (1, 2, 3, 6, 7, 8, 9, 11)
    )
    _check_record(query, query_length, queries, f"{where}: query")
    _check_record(target, target_length, targets, f"{where}: target")
    if strand not in ("+", "-"):
        raise UserError(f"{where}: strand {strand!r} (column 5) is neither + nor -")
    cigar = tags.get("cg:Z:", "")
    if not _CIGAR.fullmatch(cigar):
        raise UserError(f"{where}: no CIGAR (tag cg:Z:) of M, I, D, N, = and X; run minimap2 with -c")
    found = _STEP.findall(cigar)
    steps = np.array([ord(letter) for _, letter in found], dtype=np.uint8)
    lengths = np.array([int(length) for length, _ in found], dtype=np.int64)
    for start, end, others, side in (
        (query_start, query_end, b"DN", "query"),
        (target_start, target_end, b"I", "target"),
    ):
        covered = int(lengths[~np.isin(steps, list(others))].sum())
        if covered != end - start:
            raise UserError(
                f"{where}: the CIGAR covers {covered:,} bases of the {side}, which has {end - start:,} from {start} to "
                f"{end}; make the file again"
            )
    return Alignment(
        query, query_start, query_end, strand == "-", target, target_start, matches, quality, steps, lengths
    )


def _check_record(name: str, length: int, known: Mapping[str, int], where: str) -> None:
    if name not in known:
        raise UserError(f"{where} {name!r} is not in its FASTA ({known_names(name, known)})")
    if known[name] != length:
        raise UserError(
            f"{where} {name!r} has {length:,} bases here and {known[name]:,} in its FASTA; is it another assembly?"
        )
