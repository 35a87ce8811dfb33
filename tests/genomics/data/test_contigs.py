"""Names of contigs: plain forms, accessions and tables of aliases."""

from __future__ import annotations

from pathlib import Path

import pytest

from longscan.core.errors import UserError
from longscan.genomics.data.contigs import ContigNames, read_aliases


@pytest.mark.parametrize(
    ("own", "asked", "found"),
    [
        ("chr1", "1", "chr1"),
        ("1", "chr1", "1"),
        ("chrM", "MT", "chrM"),
        ("chrX", "NC_000023.11", "chrX"),
        ("NC_000001.11", "chr1", "NC_000001.11"),
        ("NC_000001.11", "NC_000001.11", "NC_000001.11"),
        ("NC_000001.11", "NC_000001.10", None),  # another assembly, whose positions differ
        ("NC_000001.11", "NC_003070.9", None),  # chromosome 1 of another species
        ("chr1", "chr11", None),
    ],
)
def test_one_contig_several_names(own: str, asked: str, found: str | None) -> None:
    names = ContigNames([own, "other"], "g.fa")
    assert names.find(asked) == found
    if found is None:
        with pytest.raises(UserError, match=f"v.vcf:3: contig '{asked}' is not in g.fa"):
            names.require(asked, "v.vcf:3")


def test_a_plain_form_of_two_contigs_stands_for_neither() -> None:
    assert ContigNames(["chr1", "Chr1"], "g.fa").find("1") is None


def test_aliases_of_two_contigs_stand_for_neither(tmp_path: Path) -> None:
    path = tmp_path / "alias.txt"
    path.write_text("# a comment\none\tCM1.1\tna\ntwo\tCM2.1\tna\nthree\tCM3.1\n")
    assert read_aliases(path, ["one", "two"]) == {"CM1.1": "one", "CM2.1": "two"}
    path.write_text("one\ttwo\n")
    with pytest.raises(UserError, match=r"alias.txt:1: 'one' and 'two' are different contigs"):
        read_aliases(path, ["one", "two"])
