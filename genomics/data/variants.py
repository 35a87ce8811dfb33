"""VCF files: records in the order of the file, checked against the FASTA's contigs.

htslib (through pysam) parses every record, so that what it refuses is refused here; the text of each line is read
beside it, because htslib formats numbers anew (``1e3`` becomes ``1000``) and does not say which line is wrong. A VCF
written from `VcfRecord.text` keeps every field as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ...core.errors import UserError
from .contigs import ContigNames
from .files import is_gzip, open_binary, open_text, require_file


@dataclass(slots=True)
class Variant:
    """One ALT of one record.

    Attributes:
        contig: the FASTA's name of it.
        pos: 1-based position of the first base of ``ref``, as in VCF.
        ref, alt: alleles as written.
        record: number of the record in its file, from 1.
        alt_number: number of the ALT in its record, from 1.
    """

    contig: str
    pos: int
    ref: str
    alt: str
    record: int = 1
    alt_number: int = 1


@dataclass(slots=True)
class VcfRecord:
    """One line of a VCF.

    Attributes:
        text: the line as it is in the file, without its end.
        line, number: line of the file and number of the record, both from 1.
        chrom: contig as the file names it; ``contig`` as the FASTA does.
        pos: 1-based.
        identifier: column ID, ``"."`` where it has none.
        ref: column REF.
        alts: column ALT, split; ``(".",)`` where the record has no alternative.
    """

    text: str
    line: int
    number: int
    chrom: str
    contig: str
    pos: int
    identifier: str
    ref: str
    alts: tuple[str, ...]

    def variants(self) -> list[Variant]:
        """Return every ALT of the record."""
        return [Variant(self.contig, self.pos, self.ref, alt, self.number, i) for i, alt in enumerate(self.alts, 1)]


class VcfReader:
    """Header and records of an open VCF; made by `open_vcf`.

    Attributes:
        path: the file.
        header: its lines up to and including ``#CHROM``, without line ends.
        samples: names of the samples.
    """

    def __init__(
        self,
        path: Path,
        lines: TextIO,
        parsed: Any,
        contigs: ContigNames,
        lengths: Mapping[str, int],
        allow_unsorted: bool,
    ) -> None:
        self.path, self.header = path, list[str]()
        self._lines, self._parsed = lines, parsed
        self._contigs, self._lengths, self._allow_unsorted = contigs, lengths, allow_unsorted
        for line in lines:
            self.header.append(line.rstrip("\r\n"))
            if not line.startswith("##"):
                break
        self.samples = tuple(self.header[-1].split("\t")[9:])

    def __iter__(self) -> Iterator[VcfRecord]:
        """Yield the records.

        Raises:
            UserError: with file, line and record: a line that is no VCF record, an unknown contig, a position that is
                not on the contig, or records out of order.
        """
        parsed, columns = iter(self._parsed), self.header[-1].count("\t")
        seen: set[str] = set()
        chrom, contig, length, last = "", "", 0, 0
        for number, text in enumerate(self._lines, start=1):
            text, line = text.rstrip("\r\n"), len(self.header) + number
            where = f"{self.path}:{line}: record {number}"
            try:
                record = next(parsed)
            except (OSError, ValueError, StopIteration) as error:
                raise UserError(f"{where}: is not a VCF record ({error or 'empty line'}); correct the line") from error
            fields = text.split("\t", 5)
            if text.count("\t") != columns:
                raise UserError(
                    f"{where}: {text.count(chr(9)) + 1} tab-separated columns, the header has {columns + 1}; correct "
                    f"the line, or copy the file again if it was cut short"
                )
            pos, alts = record.pos, tuple(fields[4].split(","))
            if not all(alts) or str(pos) != fields[1].lstrip("0").zfill(1):
                raise UserError(f"{where}: POS {fields[1]!r} or ALT {fields[4]!r} is not well formed; correct it")
            if fields[0] != chrom:
                chrom = fields[0]
                found = self._contigs.require(chrom, where)
                if found in seen and found != contig and not self._allow_unsorted:
                    raise UserError(
                        f"{where}: contig {chrom!r} comes a second time, the file is not sorted; sort it "
                        f"(`bcftools sort`) or allow it with --allow-unsorted"
                    )
                if found != contig:
                    contig, length, last = found, self._lengths[found], 0
                seen.add(contig)
            if pos < last and not self._allow_unsorted:
                raise UserError(
                    f"{where}: {chrom}:{pos} comes after {chrom}:{last}, the file is not sorted; sort it "
                    f"(`bcftools sort`) or allow it with --allow-unsorted"
                )
            if not 1 <= pos <= length:
                raise UserError(
                    f"{where}: {chrom}:{pos} is not on contig {contig!r}, which has {length} bases; is it another "
                    f"genome build?"
                )
            last = pos
            yield VcfRecord(text, line, number, chrom, contig, pos, fields[2], fields[3], alts)


@contextlib.contextmanager
def open_vcf(
    path: str | os.PathLike[str], contigs: ContigNames, lengths: Mapping[str, int], *, allow_unsorted: bool = False
) -> Iterator[VcfReader]:
    """Open a VCF: plain, gzip or bgzip. htslib's own messages are silenced meanwhile.

    Args:
        path: the file. gzip that is not bgzip, which htslib does not read, is decompressed to a temporary file.
        contigs: finds the FASTA's contigs under the file's names.
        lengths: the FASTA's contigs to their lengths.
        allow_unsorted: take records in any order.

    Raises:
        UserError: no such file, a truncated or corrupt one, one that is no VCF (BCF included), or a bad header.
    """
    pysam = import_pysam()
    file = require_file(path)
    with open_binary(file) as stream:
        start = stream.read(16)
    if start.startswith(b"BCF"):
        raise UserError(f"{file}: is BCF; convert it (`bcftools view -Oz -o variants.vcf.gz`)")
    if not start.removeprefix(b"\xef\xbb\xbf").startswith(b"##fileformat=VCF"):
        raise UserError(f"{file}: does not begin with ##fileformat=VCF, so it is no VCF; check the file")
    verbosity = pysam.set_verbosity(0)
    try:
        with contextlib.ExitStack() as stack:
            readable = file
            if is_gzip(file) and not _has_block_header(file):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="longscan-"))
                readable = Path(folder) / "plain.vcf"
                with open_binary(file) as stream, readable.open("wb") as plain:
                    shutil.copyfileobj(stream, plain, 2**20)
            try:
                parsed = stack.enter_context(pysam.VariantFile(os.fspath(readable)))
            except (OSError, ValueError) as error:
                if "truncated" in str(error):
                    raise UserError(f"{file}: the bgzip file is truncated; copy or download it again") from error
                raise UserError(f"{file}: its VCF header is not valid; check it (`bcftools view -h`)") from error
            lines = stack.enter_context(open_text(readable))
            reader = VcfReader(file, lines, parsed, contigs, lengths, allow_unsorted)
            if not reader.header[-1].startswith("#CHROM\tPOS\tID\tREF\tALT"):
                raise UserError(f"{file}:{len(reader.header)}: the #CHROM line is missing; correct the header")
            yield reader
    finally:
        pysam.set_verbosity(verbosity)


def count_alts(path: str | os.PathLike[str]) -> int:
    """The ALTs of a VCF, as scored, from its text alone: nothing is checked, a line that is no record counts 0."""
    with open_text(path) as stream:
        rows = (line.split("\t", 5) for line in stream if not line.startswith("#"))
        return sum(row[4].count(",") + 1 for row in rows if len(row) > 4)


def import_pysam() -> Any:
    """Import pysam, on which VCF and bgzip depend.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pysam
    except ImportError as error:
        raise UserError("VCF and bgzip need pysam; install it with `pip install longscan[genomics]`") from error
    return pysam


def _has_block_header(path: Path) -> bool:
    """Whether a gzip file begins with the extra field of a bgzip block (SAM specification, section 4.1)."""
    with path.open("rb") as stream:
        head = stream.read(18)
    return head[3:4] == b"\x04" and head[12:16] == b"BC\x02\x00"
