"""Records and intervals as what a model is asked about."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.genomics.data.bed import read_bed
from longscan.genomics.data.fasta import open_fasta
from longscan.genomics.data.items import GenomeItem, SequenceReader, check_n, interval_items, record_items
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement

CHR1 = "ACGTTGCAAGGCtattacgNNNNNACCA"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SequenceReader:
    monkeypatch.setenv("LONGSCAN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "g.fa").write_text(f">chr1 first\n{CHR1}\n>chr2\nNNNNNNNN\n>3\nACGT\n")
    return SequenceReader(open_fasta(tmp_path / "g.fa"), DNATokenizer())


def text(item: GenomeItem, start: int = 0, end: int | None = None) -> str:
    return DNATokenizer().decode(item.symbols(start, item.length if end is None else end))


def bed(folder: Path, *lines: str, name: str = "a.bed") -> Path:
    (folder / name).write_text("".join(line.replace(" ", "\t") + "\n" for line in lines))
    return folder / name


def test_records(reader: SequenceReader) -> None:
    items = record_items(reader)
    assert [(item.name, item.contig, item.start, item.end, item.strand) for item in items] == [
        ("chr1", "chr1", 0, 28, "+"), ("chr2", "chr2", 0, 8, "+"), ("3", "3", 0, 4, "+"),
    ]  # fmt: skip
    assert text(items[0]) == CHR1.upper()
    assert text(items[0], 10, 14) == "GCTA"
    assert [item.count_n() for item in items] == [5, 8, 0]


def test_case_is_the_tokenizers_only_when_asked(reader: SequenceReader) -> None:
    published = DNATokenizer.hyenadna()
    upper = SequenceReader(reader.fasta, published)
    kept = SequenceReader(reader.fasta, published, keep_case=True)
    assert record_items(upper)[0].count_n() == 5
    assert record_items(kept)[0].count_n() == 5 + sum(letter.islower() for letter in CHR1)


def test_intervals_names_and_strands(reader: SequenceReader, tmp_path: Path) -> None:
    path = bed(tmp_path, "chr1 2 9 peak 0 -", "1 4 6", "chr3 0 4 . 7.5 +", "chr1 2 9 peak 0 .")
    items = interval_items(reader, path)
    assert [(item.name, item.contig, item.strand) for item in items] == [
        ("peak", "chr1", "-"), ("chr1:4-6", "chr1", "+"), ("3:0-4", "3", "+"), ("peak", "chr1", "+"),
    ]  # fmt: skip
    assert text(items[0]) == reverse_complement(CHR1[2:9])
    assert text(items[0], 1, 3) == reverse_complement(CHR1[2:9])[1:3]
    assert items[0].positions(0, 3).tolist() == [8, 7, 6]
    assert items[3].positions(1, 3).tolist() == [3, 4]
    for position, letter in zip(items[0].positions(0, 7), text(items[0]), strict=True):
        assert reverse_complement(CHR1[position]) == letter


def test_aliases(reader: SequenceReader, tmp_path: Path) -> None:
    (tmp_path / "alias.txt").write_text("chr1\tCM000001.1\n")
    path = bed(tmp_path, "CM000001.1 0 3")
    assert text(interval_items(reader, path, aliases=tmp_path / "alias.txt")[0]) == "ACG"
    with pytest.raises(UserError, match=r"a.bed:1: contig 'CM000001.1' is not in .*alias file"):
        interval_items(reader, path)


def test_around_summits(reader: SequenceReader, tmp_path: Path) -> None:
    """Base W // 2 of the window is the summit; what lies past the contig's ends is N and counted."""
    peaks = bed(
        tmp_path, "chr1 5 15 a 0 . 1.5 2 3 4", "chr1 5 15 b 0 - 1.5 2 3 4", "chr1 0 9 c 0 . 1 1 1 -1",
        "chr1 0 4 d 0 . 1 1 1 1", "chr1 20 28 e 0 + 1 1 1 7", name="x.narrowPeak",
    )  # fmt: skip
    items = interval_items(reader, peaks, around_summit=6)
    assert [(item.start, item.end, item.padding) for item in items] == [
        (6, 12, 0), (6, 12, 0), (1, 7, 0), (-2, 4, 2), (24, 30, 2),
    ]  # fmt: skip
    assert text(items[0]) == CHR1[6:12]
    assert text(items[0])[3] == CHR1[9]
    assert text(items[1]) == reverse_complement(CHR1[6:12])
    assert text(items[3]) == "NN" + CHR1[:4]
    assert text(items[4]) == CHR1[24:] + "NN"
    assert [item.count_n() for item in items] == [0, 0, 0, 2, 2]
    plain = interval_items(reader, bed(tmp_path, "chr1 5 15"), around_summit=5)
    assert (plain[0].start, plain[0].end) == (8, 13)  # the middle, 10


def test_narrowpeak_columns(tmp_path: Path) -> None:
    content = "chr1\t5\t15\ta\t900\t+\t1.5\t2\t3\t4\n"
    (tmp_path / "p.bed.gz").write_bytes(gzip.compress(content.encode()))  # as ENCODE names them
    found = read_bed(tmp_path / "p.bed.gz", details=True)
    assert (found.score[0], found.strand[0], found.summit[0], found.name(0)) == (900, 1, 4, "a")
    plain = read_bed(tmp_path / "p.bed.gz")
    assert np.isnan(plain.score[0])
    assert (plain.strand[0], plain.summit[0]) == (0, -1)
    twelve = tmp_path / "b.bed"  # column 10 of BED12 is the number of blocks
    twelve.write_text("chr1\t5\t15\ta\t900\t-\t5\t15\t0\t2\t1,1\t0,9\n")
    found = read_bed(twelve, details=True)
    assert (found.strand[0], found.summit[0]) == (-1, -1)


@pytest.mark.parametrize(
    ("line", "name", "message"),
    [
        ("chr1 5 15 a x", "a.bed", "a.bed:1: score 'x' .* is no number"),
        ("chr1 5 15 a 0 plus", "a.bed", "a.bed:1: strand 'plus' .* is not"),
        ("chr1 5 15 a 0 + 1 1 1 10", "a.bed", "a.bed:1: summit 10 .* outside the interval of 10 bases"),
        ("chr1 5 15 a 0 + 1 1 1 x", "a.bed", "a.bed:1: summit 'x' is not a whole number"),
        ("chr1 5 15 a 0 +", "a.narrowPeak", "a.narrowPeak:1: 6 columns, narrowPeak has 10"),
        ("chr1 5 35", "a.bed", "a.bed:1: end 35 lies beyond chr1, which has 28 bases"),
        ("chr9 5 35", "a.bed", "a.bed:1: contig 'chr9' is not in .*g.fa"),
    ],
)
def test_bad_intervals(reader: SequenceReader, tmp_path: Path, line: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        interval_items(reader, bed(tmp_path, line, name=name))
    assert "\n" not in str(caught.value)


def test_nothing_but_n(reader: SequenceReader) -> None:
    items = record_items(reader)
    with pytest.raises(UserError, match=r"g.fa: 'chr2' \(chr2:0-8\) holds nothing but N.*--max-n-fraction"):
        check_n(items)
    kept, left_out = check_n(items, 0.5)
    assert ([item.n_bases for item in kept], left_out) == ([5, 0], ["chr2"])
    kept, left_out = check_n(items, 0.0)
    assert ([item.name for item in kept], left_out) == (["3"], ["chr1", "chr2"])
    with pytest.raises(UserError, match=r"--max-n-fraction 0.1: leaves none of 2 items"):
        check_n(items[:2], 0.1)
    with pytest.raises(UserError, match=r"--max-n-fraction 1: must be at least 0 and below 1"):
        check_n(items, 1.0)
    with pytest.raises(UserError, match=r"--around-summit 0"):
        interval_items(reader, "none.bed", around_summit=0)
