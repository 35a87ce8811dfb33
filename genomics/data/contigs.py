"""One contig, several names: ``chr1``, ``1``, ``NC_000001.11``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from ...core.errors import UserError
from .files import known_names, open_text

#: RefSeq accessions (without version) of the chromosomes of common reference genomes, to their plain names.
_REFSEQ: dict[str, str] = {
    **{f"NC_{i:06d}": str(i) for i in range(1, 23)},  # human
    "NC_000023": "X", "NC_000024": "Y", "NC_012920": "M",
    **{f"NC_{66 + i:06d}": str(i) for i in range(1, 20)},  # mouse
    "NC_000086": "X", "NC_000087": "Y", "NC_005089": "M",
    "NC_004354": "X", "NT_033779": "2L", "NT_033778": "2R", "NT_037436": "3L", "NT_033777": "3R",  # fruit fly
    "NC_004353": "4", "NC_024512": "Y", "NC_024511": "M",
    **dict(zip((f"NC_{n:06d}" for n in range(1133, 1149)),
               ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI"),
               strict=True)),  # baker's yeast
    "NC_001224": "M",
    "NC_003279": "I", "NC_003280": "II", "NC_003281": "III", "NC_003282": "IV", "NC_003283": "V", "NC_003284": "X",
    "NC_001328": "M",  # worm
    "NC_003070": "1", "NC_003071": "2", "NC_003074": "3", "NC_003075": "4", "NC_003076": "5",  # thale cress
}  # fmt: skip
_ACCESSION = re.compile(r"(N[CTW]_\d{6,9})(\.\d+)?")


class ContigNames:
    """Finds the contigs of a FASTA under the names that other files give them.

    A name is looked up as it is, then through ``aliases``, then by its plain form: without ``chr``, with ``MT`` and
    ``M`` the same, and RefSeq accessions of common reference genomes as the chromosome that they are. A plain form that
    two contigs of the FASTA share stands for neither, and one accession never stands for another, nor for another
    version of itself.

    Args:
        names: the FASTA's contigs.
        source: the FASTA's path, for errors.
        aliases: other name to a name in the FASTA; see `read_aliases`.
    """

    def __init__(self, names: Iterable[str], source: str, aliases: Mapping[str, str] | None = None) -> None:
        self.names, self.source = tuple(names), source
        known = set(self.names)
        self._found = {name: name for name in self.names}
        plain: dict[str, str | None] = {}
        for name in self.names:
            form = _plain(name)
            plain[form] = None if form in plain else name
        self._plain = plain
        for alias, name in (aliases or {}).items():
            if name in known:
                self._found.setdefault(alias, name)

    def find(self, name: str) -> str | None:
        """Return the FASTA's name of a contig, ``None`` where it has none."""
        if name not in self._found:
            match = self._plain.get(_plain(name))
            if match is None or (_ACCESSION.fullmatch(name) and _ACCESSION.fullmatch(match)):
                return None  # two accessions, or two versions of one, are two sequences
            self._found[name] = match
        return self._found[name]

    def require(self, name: str, where: str) -> str:
        """Return the FASTA's name of a contig.

        Raises:
            UserError: there is none; begins with ``where`` and names what exists.
        """
        found = self.find(name)
        if found is None:
            raise UserError(
                f"{where}: contig {name!r} is not in {self.source} ({known_names(name, self.names)}); "
                f"take the matching assembly or give an alias file"
            )
        return found


def read_aliases(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, str]:
    """Read a table of aliases: tab-separated names of one contig per line, as in UCSC's ``chromAlias.txt``.

    Args:
        path: the table, plain or gzip; lines that begin with # are comments.
        names: the FASTA's contigs; a line with none of them is of no use here and passed over.

    Returns:
        Every other name of a line to the FASTA's name in it. What two contigs are called (``na``, say) names neither.

    Raises:
        UserError: with file and line: a line without a tab, or with two different contigs of the FASTA.
    """
    known, aliases, ambiguous = set(names), dict[str, str](), set[str]()
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            text = line.rstrip("\r\n")
            if not text.strip() or text.startswith("#"):
                continue
            fields = [field.strip() for field in text.split("\t") if field.strip()]
            if "\t" not in text:
                raise UserError(f"{path}:{number}: one name only; a line lists a contig's names, separated by tabs")
            own = sorted(known.intersection(fields))
            if len(own) > 1:
                raise UserError(f"{path}:{number}: {own[0]!r} and {own[1]!r} are different contigs; correct the line")
            for field in fields if own else ():
                if field not in known and aliases.setdefault(field, own[0]) != own[0]:
                    ambiguous.add(field)
    return {alias: name for alias, name in aliases.items() if alias not in ambiguous}


def _plain(name: str) -> str:
    match = _ACCESSION.fullmatch(name)
    if match:
        return _REFSEQ.get(match[1], name)
    short = name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name
    return "M" if short == "MT" else short
