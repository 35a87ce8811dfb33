"""Random access to FASTA files of any size: plain, bgzip, or gzip.

The file is checked and indexed once, in one streaming pass, and the result is remembered by path, size and time of
change. After that a fetch reads only the bytes of its window, through pyfaidx. bgzip files are read in place; plain
gzip has no random access, so such a file is decompressed once into the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError, nearest
from ...core.files import replacing
from ..datasets import dataset_path
from .fasta_scan import FastaRecord, scan_fasta
from .files import cache_folder, is_gzip, known_names, open_binary, require_file

_FORMAT = 1
#: The empty block with which every complete bgzip file ends (SAM specification, section 4.1.2).
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

#: What may be written in place of a FASTA path.
EMBEDDED = {
    "embedded:drosophila4": "drosophila_melanogaster_chr4.fna.gz",
    "embedded:yeast1": "saccharomyces_cerevisiae_chrI.fna.gz",
}


def resolve_fasta(path: str | os.PathLike[str]) -> Path:
    """The file behind ``path``, which may be ``embedded:drosophila4`` or ``embedded:yeast1``.

    Raises:
        UserError: an unknown embedded name, or what `require_file` raises.
    """
    text = os.fspath(path)
    if not text.startswith("embedded:"):
        return require_file(path)
    if text not in EMBEDDED:
        raise UserError(f"unknown embedded genome {text!r} ({nearest(text, EMBEDDED)})")
    return dataset_path(EMBEDDED[text])


def open_fasta(path: str | os.PathLike[str], *, gaps: bool = False) -> FastaReader:
    """Check and index a FASTA file (once), and return its reader. With ``gaps`` it may hold ``-``, as alignments do.

    Raises:
        UserError: whatever is wrong with the file, with its path, record and line.
    """
    return FastaReader(resolve_fasta(path), gaps=gaps)


def fasta_text(header: str, sequence: str, width: int = 80) -> str:
    """One record as text, in lines of ``width`` bases."""
    return f">{header}\n" + "".join(f"{sequence[i : i + width]}\n" for i in range(0, len(sequence), width))


class FastaReader:
    """Sequences of one FASTA file by name and position.

    The file is opened at the first fetch and again in every process that the reader reaches, by fork or by pickling.

    Attributes:
        path: the file.
        names: record names, in the order of the file.
        lengths: name to number of bases.
    """

    def __init__(self, path: Path, *, gaps: bool = False) -> None:
        self.path = path
        self._index = _indexed(path, gaps)
        self.lengths = _read_lengths(Path(self._index.index))
        self.names = list(self.lengths)
        self._handle: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None, "_process": 0}

    def fetch(self, name: str, start: int, end: int, *, pad: bool = False) -> str:
        """Bases ``start`` to ``end`` of a record, 0-based and half-open, with the case of the file.

        With ``pad`` what lies beyond the ends of the record is N; without, it is an error.

        Raises:
            UserError: an unknown record, ``start > end``, or a window past the ends without ``pad``.
        """
        length = self.lengths.get(name)
        if length is None:
            raise UserError(f"{self.path}: no record named {name!r} ({known_names(name, self.lengths)})")
        if start > end:
            raise UserError(f"{self.path}: {name}:{start}-{end}: the start lies behind the end; swap them")
        inner_start, inner_end = min(max(start, 0), length), min(max(end, 0), length)
        if (inner_start, inner_end) != (start, end) and not pad:
            raise UserError(
                f"{self.path}: {name}:{start}-{end} reaches beyond the record, which has {length} bases; correct it or "
                f"pad with N"
            )
        text = ""
        if inner_start < inner_end:
            text = self._open().fetch(name, inner_start + 1, inner_end)
            if len(text) != inner_end - inner_start:
                raise UserError(f"{self.path}: the file changed while it was in use; start again")
        if not pad:
            return text
        return "N" * min(max(-start, 0), end - start) + text + "N" * min(max(end - length, 0), end - start)

    def _open(self) -> Any:
        # A file handle shared by forked processes has one position for all of them: each needs its own.
        if self._handle is None or self._process != os.getpid():
            pyfaidx = _import_pyfaidx()
            self._handle = pyfaidx.Faidx(
                self._index.data,
                indexname=self._index.index,
                gzi_indexname=self._index.block_index,
                as_raw=True,
                build_index=False,
            )
            self._process = os.getpid()
        return self._handle


@dataclass(frozen=True)
class _Index:
    """The files that serve a FASTA: ``data`` is what is read, beside it the .fai and, for bgzip, the .gzi."""

    data: str
    index: str
    block_index: str | None
    stamps: dict[str, list[int]]  # file to its size and time of change, all of which must still hold
    format: int = _FORMAT


def _import_pyfaidx() -> Any:
    try:
        import pyfaidx
    except ImportError as error:
        raise UserError("reading FASTA needs pyfaidx; install it with `pip install longscan[genomics]`") from error
    return pyfaidx


def _stamp(path: str | Path) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _indexed(source: Path, gaps: bool) -> _Index:
    """The index of a file: the remembered one if nothing changed since, otherwise a new one."""
    key = hashlib.sha256(json.dumps([str(source), *_stamp(source), *["gaps"][:gaps]]).encode()).hexdigest()[:24]
    folder = cache_folder("fasta")
    memory = folder / f"{key}.json"
    if memory.exists():
        known = _remembered(memory)
        if known is not None:
            return known
    data, compressed = source, is_gzip(source)
    in_place = not compressed or _is_bgzip(source)
    if not compressed and source.suffix.lower() in (".gz", ".bgz"):
        raise UserError(f"{source}: is named as gzip but is not compressed; rename it")
    block_index: Path | None = None
    if in_place:
        with open_binary(source) as stream:
            records = scan_fasta(stream, source, gaps=gaps)
        own = source.parent == dataset_path(next(iter(EMBEDDED.values()))).parent  # the package stays as installed
        beside = source if os.access(source.parent, os.W_OK) and not own else folder / key
        if compressed:
            block_index = beside.with_name(beside.name + ".gzi")
            _write_block_index(source, block_index)
    else:
        data = beside = folder / f"{key}.fa"
        records = _decompress(source, data, gaps)
    index = beside.with_name(beside.name + ".fai")
    rows = [f"{r.name}\t{r.length}\t{r.offset}\t{r.line_bases}\t{r.line_width}\n" for r in records]
    with replacing(index) as temporary:
        temporary.write_text("".join(rows), encoding="utf-8")
    files = [file for file in (data, index, block_index) if file is not None]
    result = _Index(
        str(data), str(index), None if block_index is None else str(block_index), {str(f): _stamp(f) for f in files}
    )
    with replacing(memory) as temporary:
        temporary.write_text(json.dumps(asdict(result)), encoding="utf-8")
    return result


def _remembered(memory: Path) -> _Index | None:
    """What an earlier pass found, or None where one of its files has changed or gone, or the format is another."""
    found = json.loads(memory.read_text(encoding="utf-8"))
    if found.get("format") != _FORMAT:
        return None
    for file, stamp in found["stamps"].items():
        if not os.path.exists(file) or _stamp(file) != stamp:
            return None
    return _Index(**found)


def _is_bgzip(path: Path) -> bool:
    """Whether a gzip file consists of bgzip blocks and is named so that pyfaidx reads it as such.

    Raises:
        UserError: a bgzip file that does not end with the empty block, so was cut short.
    """
    with path.open("rb") as stream:
        head = stream.read(18)
        if not (head[3:4] == b"\x04" and head[12:16] == b"BC\x02\x00"):
            return False
        stream.seek(-min(len(_BGZIP_END), path.stat().st_size), os.SEEK_END)
        if stream.read() != _BGZIP_END:
            raise UserError(f"{path}: the bgzip file is truncated (no end marker); copy or download it again")
    return path.suffix.lower() in (".gz", ".bgz")


def _decompress(source: Path, target: Path, gaps: bool) -> list[FastaRecord]:
    """Write a gzip file uncompressed to ``target``, which appears only if the whole of it is good FASTA."""
    with replacing(target) as temporary:
        with open_binary(source) as stream, temporary.open("wb") as output:
            while chunk := stream.read(8 * 2**20):
                output.write(chunk)
        with temporary.open("rb") as plain:
            return scan_fasta(plain, source, gaps=gaps)


def _write_block_index(source: Path, target: Path) -> None:
    """Write the .gzi of htslib: the number of blocks, then where each begins, compressed and uncompressed; the first
    block, at 0, and the empty last one are left out."""
    try:
        from Bio import bgzf
    except ImportError as error:
        raise UserError("reading bgzip needs biopython; install it with `pip install longscan[genomics]`") from error
    with source.open("rb") as stream:
        blocks = [(start, data_start) for start, _, data_start, _ in bgzf.BgzfBlocks(stream)]
    blocks = blocks[1:-1]
    with replacing(target) as temporary:
        content = b"".join(struct.pack("<QQ", *block) for block in blocks)
        temporary.write_bytes(struct.pack("<Q", len(blocks)) + content)


def _read_lengths(index: Path) -> dict[str, int]:
    rows = [line.split("\t") for line in index.read_text(encoding="utf-8").splitlines()]
    return {row[0]: int(row[1]) for row in rows}
