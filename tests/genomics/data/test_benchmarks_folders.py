"""Genomic Benchmarks in both forms, the Nucleotide Transformer tasks, and GUE: contents, classes, splits, bad input."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.genomics.data import (
    GenomicBenchmarksDataModule,
    GUEDataModule,
    NucleotideTransformerDataModule,
)
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement

PLAIN = DNATokenizer(special_tokens="none")
FASTA = ">chr1 one\nACGTTGCAAC\nGGATCCTTAG\n>chr2\nTTTTTCCCCCGGGGGAAAAA\n"
CHR1, CHR2 = "ACGTTGCAACGGATCCTTAG", "TTTTTCCCCCGGGGGAAAAA"


def texts(dataset: Any) -> list[str]:
    return [PLAIN.decode(dataset.table[row]) for row in range(len(dataset))]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# Genomic Benchmarks, a folder for each class


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Classes whose folders are made in an order that is not theirs, files whose names sort as numbers."""
    generator = np.random.default_rng(0)
    for split, rows in (("test", 6), ("train", 20)):
        for label in ("promoter", "enhancer", "ocr"):
            for row in range(rows):
                first = {"promoter": "A", "enhancer": "C", "ocr": "G"}[label]
                bases = first + "".join(generator.choice(list("ACGT"), size=7)) + "ACGT"[row % 4]
                write(tmp_path / "regulatory" / split / label / f"{row}.txt", bases + "\n")
    return tmp_path


def test_class_folders(folders: Path) -> None:
    data = GenomicBenchmarksDataModule(str(folders), "regulatory", tokenizer=PLAIN, val_fraction=0.1, batch_size=4)
    assert data.class_names == ["enhancer", "ocr", "promoter"]
    data.setup("fit")
    data.setup("test")
    assert np.bincount(data.train_set.targets).tolist() == [18, 18, 18]
    assert np.bincount(data.val_set.targets).tolist() == [2, 2, 2]
    for dataset in (data.train_set, data.val_set, data.test_set["test"]):
        assert all(text[0] == "CGA"[target] for text, target in zip(texts(dataset), dataset.targets, strict=True))
    test = data.test_set["test"]
    assert test.targets.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert texts(test)[7] == (folders / "regulatory/test/ocr/1.txt").read_text().strip()
    assert test.table.names.tolist() == [str(row) for row in range(6)] * 3
    train = data.train_set.table
    where = {train.where(row) for row in range(len(train))}
    held = {data.val_set.table.where(row) for row in range(len(data.val_set))}
    assert not where & held
    assert len(where | held) == 60
    assert all("/train/" in place for place in where | held)
    assert str(folders / "regulatory/train/enhancer") in min(where)
    assert "10.txt" in train.where(int(np.flatnonzero(train.names == "10")[0]))


def test_validation_depends_on_the_seed_alone(folders: Path) -> None:
    def held_out(seed: int) -> list[str]:
        data = GenomicBenchmarksDataModule(str(folders / "regulatory"), tokenizer=PLAIN, seed=seed)
        data.setup("fit")
        return [data.val_set.table.where(row) for row in range(len(data.val_set))]

    assert held_out(1) == held_out(1)
    assert held_out(1) != held_out(2)


def test_class_folders_wrong(folders: Path) -> None:
    root = folders / "regulatory"
    with pytest.raises(UserError, match=r"has no task 'regulator' .*regulatory"):
        GenomicBenchmarksDataModule(str(folders), "regulator")
    (root / "train" / "ocr" / "3.txt").write_text("\n")
    with pytest.raises(UserError, match=r"ocr/3\.txt: the file is empty"):
        GenomicBenchmarksDataModule(str(root)).setup("fit")
    (root / "train" / "ocr" / "3.txt").write_text("ACX")
    with pytest.raises(UserError, match=r"ocr/3\.txt: 'X' at position 3"):
        GenomicBenchmarksDataModule(str(root)).setup("fit")
    (root / "train" / "ocr" / "3.txt").write_text("NNNN")
    with pytest.raises(UserError, match=r"train/ocr/3\.txt: record '3': the sequence holds no A, C, G or T"):
        GenomicBenchmarksDataModule(str(root)).setup("fit")
    (root / "train" / "ocr" / "3.txt").write_text("A" * 30)
    with pytest.raises(UserError, match=r"train/ocr/3\.txt: the sequence has 30 bases but max_length=20"):
        GenomicBenchmarksDataModule(str(root), max_length=20).setup("fit")
    for file in (root / "test" / "ocr").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"test/ocr: has no \.txt file"):
        GenomicBenchmarksDataModule(str(root)).setup("test")
    (root / "test" / "ocr").rmdir()
    with pytest.raises(UserError, match=r"test: class 'ocr' is missing .*same classes"):
        GenomicBenchmarksDataModule(str(root))
    (root / "test" / "other").mkdir()
    (root / "test" / "ocr").mkdir()
    with pytest.raises(UserError, match=r"train: class 'other' is missing"):
        GenomicBenchmarksDataModule(str(root))
    write(root / "test" / "ocr.csv", "id\n")
    with pytest.raises(UserError, match=r"test: has folders of sequences and also ocr\.csv"):
        GenomicBenchmarksDataModule(str(root))
    with pytest.raises(UserError, match="no such folder; a data set has the folders train and test"):
        GenomicBenchmarksDataModule(str(folders))


# Genomic Benchmarks, intervals

HEADER = "id,region,start,end,strand\n"


@pytest.fixture
def intervals(tmp_path: Path) -> Path:
    """Two classes of intervals under another name of the contig, and their reference."""
    write(tmp_path / "ref.fa.gz", FASTA)
    rows = {
        "positive": "0,chr1,0,5,+\n1,1,2,7,-\n2,chr2,15,20,-\n",
        "negative": "0,2,3,8,+\n1,chr1,15,20,+\n2,one,0,1,-\n",
    }
    for split in ("train", "test"):
        for label, text in rows.items():
            write(tmp_path / "set" / split / f"{label}.csv.gz", HEADER + text)
    write(tmp_path / "set" / "metadata.yaml", "version: 0\n")
    (tmp_path / "aliases.txt").write_text("chr1\tone\n")
    return tmp_path


def test_intervals_are_the_reference(intervals: Path) -> None:
    data = GenomicBenchmarksDataModule(
        str(intervals / "set"),
        reference=str(intervals / "ref.fa.gz"),
        aliases=str(intervals / "aliases.txt"),
        tokenizer=PLAIN,
    )
    assert data.class_names == ["negative", "positive"]
    data.setup("test")
    test = data.test_set["test"]
    assert test.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert texts(test) == [
        CHR2[3:8],
        CHR1[15:20],
        reverse_complement(CHR1[0]),
        CHR1[0:5],
        reverse_complement(CHR1[2:7]),
        reverse_complement(CHR2[15:20]),
    ]
    assert test.table.lengths.tolist() == [5, 5, 1, 5, 5, 5]
    assert test.table.names.tolist() == ["0", "1", "2"] * 2
    assert test.table.where(4).endswith("positive.csv.gz:3")
    data.setup("fit")
    rows = sorted(texts(data.train_set) + texts(data.val_set))
    assert rows == sorted(texts(test))  # the same rows in both files here, and none lost


def test_a_reference_for_each_class(intervals: Path) -> None:
    """Transcript ids are the record names of another FASTA."""
    write(intervals / "cdna.fa", ">ENST01.2\nGGGGGTTTTT\n")
    for split in ("train", "test"):
        write(intervals / "set" / split / "positive.csv.gz", HEADER + "7,ENST01.2,4,7,+\n8,ENST01.2,4,7,-\n")
    references = {"positive": str(intervals / "cdna.fa"), "negative": str(intervals / "ref.fa.gz")}
    options: dict[str, Any] = {"aliases": str(intervals / "aliases.txt"), "tokenizer": PLAIN}
    data = GenomicBenchmarksDataModule(str(intervals / "set"), reference=references, **options)
    data.setup("test")
    assert texts(data.test_set["test"])[3:] == ["GTT", "AAC"]
    with pytest.raises(UserError, match="reference: names no FASTA for class 'negative'"):
        GenomicBenchmarksDataModule(str(intervals / "set"), reference={"positive": "x"}, **options)
    with pytest.raises(UserError, match="lists intervals, not sequences; give reference"):
        GenomicBenchmarksDataModule(str(intervals / "set"), **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,region,start,strand\n0,chr1,0,+\n", r"positive\.csv\.gz:1: no column 'end'"),
        (
            HEADER + "0,chr1,0,5,+\n1,chr1,18,21,+\n",
            r"positive\.csv\.gz:3: end 21 lies beyond chr1, which has 20 bases",
        ),
        (HEADER + "0,chr1,5,5,+\n", r"positive\.csv\.gz:2: start 5 is not before end 5"),
        (HEADER + "0,chr9,0,5,+\n", r"positive\.csv\.gz:2: contig 'chr9' is not in"),
        (HEADER + "0,chr1,-1,5,+\n", r"positive\.csv\.gz:2: start '-1' is not a whole number"),
        (HEADER + "0,chr1,0,5,x\n", r"positive\.csv\.gz:2: strand 'x' is not"),
        (HEADER + "0,chr1,0,5\n", r"positive\.csv\.gz:2: 4 columns, the header has 5"),
        (HEADER, r"positive\.csv\.gz: has a header but no row"),
    ],
)
def test_intervals_wrong(intervals: Path, text: str, message: str) -> None:
    write(intervals / "set" / "train" / "positive.csv.gz", text)
    reference, aliases = str(intervals / "ref.fa.gz"), str(intervals / "aliases.txt")
    data = GenomicBenchmarksDataModule(str(intervals / "set"), reference=reference, aliases=aliases)
    with pytest.raises(UserError, match=message) as caught:
        data.setup("fit")
    assert "\n" not in str(caught.value)


def test_intervals_of_nothing_but_n(intervals: Path) -> None:
    reference = write(intervals / "n.fa", ">chr1\nACGTTNNNNN\n")
    for split in ("train", "test"):
        for label in ("positive", "negative"):
            write(intervals / "set" / split / f"{label}.csv.gz", HEADER + "0,chr1,0,5,+\n1,chr1,5,9,+\n")
    data = GenomicBenchmarksDataModule(str(intervals / "set"), reference=str(reference))
    with pytest.raises(UserError, match=r"\.csv\.gz:3: interval '1': the sequence holds no A, C, G or T"):
        data.setup("fit")


# Nucleotide Transformer


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """One task under the hub's name and one under HyenaDNA's; labels that would sort wrongly as text."""
    train = "".join(f">chr{i}:1|2|{label}\n{'ACGT'[i % 4]}CC\nGG\n" for i in range(20) for label in (2, 10))
    test = ">a b|10\nAAA\n>c|2\nCCCC\n"
    write(tmp_path / "enhancers" / "enhancers_train.fna.gz", train)
    write(tmp_path / "enhancers" / "test.fasta", test)
    write(tmp_path / "promoter_non_tata" / "promoter_non_tata_train.fasta", train)
    write(tmp_path / "promoter_non_tata" / "promoter_non_tata_test.fasta", test)
    return tmp_path


@pytest.mark.parametrize("task", ["enhancers", "enhancer", "promoter_non_tata", "promoter_no_tata"])
def test_nucleotide_transformer_tasks_under_either_name(tasks: Path, task: str) -> None:
    data = NucleotideTransformerDataModule(str(tasks), task, tokenizer=PLAIN)
    data.setup("fit")
    data.setup("test")
    assert data.class_names == ["2", "10"]
    test = data.test_set["test"]
    assert (texts(test), test.targets.tolist()) == (["AAA", "CCCC"], [1, 0])
    assert test.table.names.tolist() == ["a b", "c"]
    assert np.bincount(data.val_set.targets).tolist() == [2, 2]
    assert np.bincount(data.train_set.targets).tolist() == [18, 18]
    assert not set(data.train_set.table.lines) & set(data.val_set.table.lines)
    row = int(np.flatnonzero(data.train_set.table.names == "chr7:1|2")[0])
    assert texts(data.train_set)[row] == "TCCGG"


def test_nucleotide_transformer_wrong(tasks: Path) -> None:
    with pytest.raises(UserError, match="has no task 'H3'"):
        NucleotideTransformerDataModule(str(tasks), "H3")
    for header in ("name", "name|", "name|x", "|1"):
        write(tasks / "enhancers" / "test.fasta", f">a|0\nA\n>{header}\nACGT\n")
        data = NucleotideTransformerDataModule(str(tasks), "enhancers", class_names=["0", "1"])
        with pytest.raises(
            UserError, match=r"test\.fasta:3: record '.*' has no label; its header must be '>name|label'"
        ):
            data.setup("test")
    write(tasks / "enhancers" / "test.fasta", ">a|2\nA\n>b|2\nNN\n")
    with pytest.raises(UserError, match=r"test\.fasta:3: record 'b': the sequence holds no A, C, G or T"):
        NucleotideTransformerDataModule(str(tasks), "enhancers", class_names=["2", "10"]).setup("test")
    write(tasks / "enhancers" / "b_train.fa", ">a|0\nA\n")
    with pytest.raises(UserError, match=r"both b_train\.fa and enhancers_train\.fna\.gz could be the train file"):
        NucleotideTransformerDataModule(str(tasks), "enhancers")
    (tasks / "enhancers" / "test.fasta").unlink()
    (tasks / "enhancers" / "b_train.fa").unlink()
    with pytest.raises(UserError, match="has no test file"):
        NucleotideTransformerDataModule(str(tasks), "enhancers")


# GUE


def test_gue_validates_on_dev(tmp_path: Path) -> None:
    for name, rows in (("train", 6), ("dev", 4), ("test", 2)):
        text = "sequence,label\n" + "".join(
            f"{'GG' if name == 'dev' else 'AC'}{'T' * i},{i % 2}\n" for i in range(rows)
        )
        write(tmp_path / "EMP" / "H3" / f"{name}.csv{'.gz' if name == 'test' else ''}", text)
    data = GUEDataModule(str(tmp_path), "EMP/H3", tokenizer=PLAIN)
    data.setup("fit")
    data.setup("test")
    assert texts(data.val_set) == ["GG", "GGT", "GGTT", "GGTTT"]
    assert data.val_set.targets.tolist() == [0, 1, 0, 1]
    assert len(data.train_set) == 6
    assert texts(data.test_set["test"]) == ["AC", "ACT"]
    (tmp_path / "EMP" / "H3" / "dev.csv").write_text("seq,label\nA,0\n")
    with pytest.raises(UserError, match=r"dev\.csv:1: no column 'sequence'"):
        GUEDataModule(str(tmp_path), "EMP/H3").setup("fit")
    (tmp_path / "EMP" / "H3" / "dev.csv").unlink()
    with pytest.raises(UserError, match=r"dev\.csv: no such file; a task of GUE has"):
        GUEDataModule(str(tmp_path), "EMP/H3")
    with pytest.raises(UserError, match=r"has no task 'EMP/H4' .*H3"):
        GUEDataModule(str(tmp_path), "EMP/H4")
