"""Reading sequence tables and writing predictions."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.genomics.data.tables import SequenceTable, is_fasta, read_fasta_table, read_table
from longscan.genomics.datasets import dataset_path
from longscan.genomics.tokenizer import DNATokenizer

PLAIN = DNATokenizer(special_tokens="none")


def texts(table: SequenceTable) -> list[str]:
    return [PLAIN.decode(table[i]) for i in range(len(table))]


def test_a_packaged_table_agrees_with_the_csv_module() -> None:
    path = dataset_path("splice_sites_200") / "val.tsv.gz"
    with gzip.open(path, "rt") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    table = read_table(path, PLAIN)
    assert texts(table) == [row["sequence"] for row in rows]
    assert table.labels is not None
    assert table.labels.tolist() == [row["label"] for row in rows]
    assert table.lines.tolist() == list(range(2, 3002))
    assert table.names.tolist()[:2] == ["1", "2"]
    assert table.symbols.dtype == np.uint8
    assert table.symbols.nbytes == 600_000
    part = table.select(np.array([5, 2]))
    assert texts(part) == [rows[5]["sequence"], rows[2]["sequence"]]
    assert part.where(0) == f"{path}:7"


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.txt", "a.tsv.gz", "a.csv.gz"])
def test_separators_columns_quotes_and_compression(tmp_path: Path, name: str) -> None:
    comma = ".csv" in name
    text = "id\tseq\tclass\r\nx\tACGT\tb\r\n\r\ny\tac\ta\r\n"
    if comma:
        text = '\ufeffid,seq,class\n"x, 1",ACGT,"b\nb"\ny,ac,a\n'
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    table = read_table(tmp_path / name, PLAIN, sequence_column="seq", label_column="class")
    assert texts(table) == ["ACGT", "AC"]
    assert table.labels is not None
    assert table.labels.tolist() == ["b\nb" if comma else "b", "a"]
    assert table.names.tolist() == ["x, 1" if comma else "x", "y"]
    assert table.lines.tolist() == [2, 4]


def test_sequences_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("sequence\tlabel\n" + "ACGT" * 100_000 + "\t1\n")
    limit = csv.field_size_limit()
    assert read_table(tmp_path / "a.tsv", PLAIN).lengths.tolist() == [400_000]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "", "a.tsv: the file is empty"),
        ("a.tsv", "sequence\tlabel\n", "a.tsv: has a header but no row"),
        ("a.tsv", "seq\tlabel\nA\t1\n", "a.tsv:1: no column 'sequence'; there are: seq, label; set sequence_column"),
        ("a.tsv", "sequence\ty\nA\t1\n", "a.tsv:1: no column 'label'; there are: sequence, y; set label_column"),
        ("a.tsv", "sequence,label\nA,1\n", "a.tsv:1: no column 'sequence'; there are: sequence,label"),
        ("a.tsv", "sequence\tsequence\tlabel\nA\tA\t1\n", "two columns are named 'sequence'"),
        ("a.tsv", "sequence\tlabel\nA\t1\nC\n", r"a.tsv:3: 1 column\(s\), the header has 2"),
        ("a.csv", "sequence,label\nA,1\nC,1,2\n", r"a.csv:3: 3 column\(s\), the header has 2"),
        ("a.tsv", "sequence\tlabel\nA\t1\n\t1\n", "a.tsv:3: the sequence is empty"),
        ("a.tsv", "sequence\tlabel\nA\t1\nA\t\n", "a.tsv:3: the label is empty"),
        ("a.tsv", "sequence\tlabel\nA\t1\nAXT\t1\n", "a.tsv:3: 'X' at position 2"),
        ("a.csv", 'sequence,label\nA,1\n"A,1\n', "cannot be read as a table"),
        ("a.json", "[]", "the extension '.json' does not say how columns are separated"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_table(tmp_path / name, PLAIN)
    assert "\n" not in str(caught.value)
    if text:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        with pytest.raises(UserError, match=message.replace(f"{name}:", f"{name}.gz:")):
            read_table(tmp_path / f"{name}.gz", PLAIN)


def test_sequences_without_a_nucleotide(tmp_path: Path) -> None:
    """N, and what the tokenizer reads as N or [UNK], is none; one base is enough."""
    path, keep = tmp_path / "a.tsv", DNATokenizer.hyenadna()
    path.write_text("name\tsequence\tlabel\nx\tNNANN\t1\ny\tu\t1\nz\tacgt\t1\n")
    table = read_table(path, PLAIN)
    table.check_nucleotides(PLAIN)
    assert texts(table) == ["NNANN", "T", "ACGT"]
    with pytest.raises(
        UserError, match=r"a\.tsv:3: record 'y': the sequence holds no A, C, G or T, lower-case .*'keep'"
    ):
        read_table(path, keep).check_nucleotides(keep)
    path.write_text("sequence\tlabel\nA\t1\nNRNN\t1\nC\t1\nN\t1\n")
    with pytest.raises(UserError, match=r"a\.tsv:3: record '2': the sequence holds no A, C, G or T, so .*; remove it"):
        read_table(path, PLAIN).check_nucleotides(PLAIN)
    (tmp_path / "b.fa").write_text(">x\nACNN\nNN\n>y one\nNNNN\nNN\n")
    with pytest.raises(UserError, match=r"b\.fa:4: record 'y': the sequence holds no A, C, G or T, so .*; remove it"):
        read_fasta_table(tmp_path / "b.fa", PLAIN).check_nucleotides(PLAIN)


def test_truncated_and_binary_files(tmp_path: Path) -> None:
    whole = (dataset_path("splice_sites_200") / "val.tsv.gz").read_bytes()
    (tmp_path / "a.tsv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.tsv\.gz: the gzip file is truncated"):
        read_table(tmp_path / "a.tsv.gz", PLAIN)
    (tmp_path / "b.tsv").write_bytes(b"sequence\tlabel\nA\t\xff\xfe\n")
    with pytest.raises(UserError, match=r"b\.tsv: is not UTF-8 text"):
        read_table(tmp_path / "b.tsv", PLAIN)


def test_fasta_as_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(b">x one\nAC\nGTT\n\n>y\r\nac\r\n"))
    assert is_fasta(path)
    table = read_fasta_table(path, PLAIN)
    assert texts(table) == ["ACGTT", "AC"]
    assert table.names.tolist() == ["x", "y"]
    assert table.lines.tolist() == [1, 5]
    assert table.labels is None
    for text, message in (
        (">x\n>y\nA\n", ":1: record 'x' has no sequence"),
        (">x\nAEC\n", ":1: record 'x': 'E' at position 2"),
        (">\nA\n", ":1: a record without a name"),
        ("hello\n", ":1: not FASTA: the first character is 'h'"),
    ):
        (tmp_path / "b.fa").write_text(text)
        with pytest.raises(UserError, match=message):
            read_fasta_table(tmp_path / "b.fa", PLAIN)
