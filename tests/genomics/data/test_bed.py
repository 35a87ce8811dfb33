"""Reading BED files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from longscan.core.errors import UserError
from longscan.genomics.data.bed import read_bed

LENGTHS = {"chr1": 1000, "chr2": 500}


def test_columns_comments_and_compression(tmp_path: Path) -> None:
    text = "#c\ntrack name=x\nbrowser position\n\nchr2\t0\t500\ttrain\t0\t+\r\nchr1\t10\t20\tvalid\nchr2\t5\t6\ttrain"
    (tmp_path / "a.bed").write_bytes(text.encode())
    (tmp_path / "a.bed.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.bed", "a.bed.gz"):
        found = read_bed(tmp_path / name, LENGTHS)
        assert len(found) == 3
        assert [found.contigs[i] for i in found.contig] == ["chr2", "chr1", "chr2"]
        assert found.start.tolist() == [0, 10, 5]
        assert found.end.tolist() == [500, 20, 6]
        assert [found.labels[i] for i in found.label] == ["train", "valid", "train"]
        assert found.line.tolist() == [5, 6, 7]


def test_three_columns_have_no_label(tmp_path: Path) -> None:
    (tmp_path / "a.bed").write_text("chr1\t0\t5\n")
    assert read_bed(tmp_path / "a.bed").label.tolist() == [-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1\t0\t5\nchr1\t7\t7\n", "a.bed:2: start 7 is not before end 7"),
        ("chr1\t9\t7\n", "a.bed:1: start 9 is not before end 7"),
        ("chr1\t9\t1001\n", "a.bed:1: end 1001 lies beyond chr1, which has 1000 bases"),
        ("#x\nchr3\t0\t5\n", "a.bed:2: contig 'chr3' is not in the FASTA .*chr1"),
        ("chr1\ta\t5\n", "a.bed:1: start 'a' is not a whole number"),
        ("chr1\t0\t5.0\n", "a.bed:1: end '5.0' is not a whole number"),
        ("chr1\t-1\t5\n", "a.bed:1: start '-1' is not a whole number"),
        ("chr1 0 5\n", r"a.bed:1: 1 tab-separated column\(s\)"),
        ("#nothing\n", "a.bed: holds no interval"),
        ("", "a.bed: the file is empty"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.bed"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_bed(path, LENGTHS)
    assert "\n" not in str(caught.value)


def test_many_contigs_do_not_flood_the_error(tmp_path: Path) -> None:
    (tmp_path / "a.bed").write_text("zz\t0\t5\n")
    with pytest.raises(UserError, match="and 92 more"):
        read_bed(tmp_path / "a.bed", {f"contig{i}": 10 for i in range(100)})
