"""BED intervals with classes, labels or numbers, and tables with several targets: contents, splits, bad input."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longscan.core.errors import UserError
from longscan.genomics.data import IntervalDataModule, SequenceTableDataModule
from longscan.genomics.data.interval_table import IntervalTable
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement

PLAIN = DNATokenizer(special_tokens="none")
GENOME = {"chr1": "ACGTTGCAACGGATCCTTAG", "chr2": "TTTTTCCCCCGGGGGAAAAA", "chr3": "GATTACAGATTACA"}


def texts(dataset: Any) -> list[str]:
    return [PLAIN.decode(dataset.table[row]) for row in range(len(dataset))]


@pytest.fixture
def fasta(tmp_path: Path) -> str:
    path = tmp_path / "genome.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in GENOME.items()))
    return str(path)


def bed(folder: Path, *rows: str, name: str = "regions.bed") -> str:
    path = folder / name
    path.write_text("# made up\ntrack name=x\n" + "".join(row.replace(" ", "\t") + "\n" for row in rows))
    return str(path)


# Sequences and splits


def test_strand_and_coordinates(tmp_path: Path, fasta: str) -> None:
    rows = ("chr1 0 4 a 0 +", "1 2 7 b 0 -", "chr2 18 20 a 0 .", "chr3 5 6 b")
    path = bed(tmp_path, *rows)
    data = IntervalDataModule(fasta, test_bed=path, class_names=["a", "b"], tokenizer=PLAIN)
    data.setup("test")
    test = data.test_set["test"]
    forward = [GENOME["chr1"][0:4], GENOME["chr1"][2:7], "AA", "C"]
    assert texts(test) == [forward[0], reverse_complement(forward[1]), *forward[2:]]
    assert test.targets.tolist() == [0, 1, 0, 1]
    assert test.table.where(1) == f"{path}:4"
    plus = IntervalDataModule(fasta, test_bed=path, class_names=["a", "b"], tokenizer=PLAIN, stranded=False)
    plus.setup("test")
    assert texts(plus.test_set["test"]) == forward
    assert texts(pickle.loads(pickle.dumps(test))) == texts(test)  # as loader processes get it


def test_a_width_around_the_middle(tmp_path: Path, fasta: str, caplog: pytest.LogCaptureFixture) -> None:
    """Base width // 2 of a window is base (start + end) // 2 of the contig; N beyond its ends, and a count of them."""
    path = bed(tmp_path, "chr1 9 11 a 0 +", "chr1 9 10 b 0 -", "chr1 0 2 a 0 +", "chr3 13 14 b 0 -")
    data = IntervalDataModule(fasta, test_bed=path, class_names=["a", "b"], tokenizer=PLAIN, width=5)
    with caplog.at_level(logging.INFO):
        data.setup("test")
    one = GENOME["chr1"]
    assert texts(data.test_set["test"]) == [
        one[8:13],
        reverse_complement(one[7:12]),
        "N" + one[0:4],
        reverse_complement(GENOME["chr3"][11:] + "NN"),
    ]
    assert data.longest_input() == (5, "data.width=5", "lower it by as many")
    assert "2 of 4 windows of 5 bases reach beyond their contig; 3 bases are filled with N" in caplog.text


def test_split_by_chromosome(tmp_path: Path, fasta: str) -> None:
    rows = [f"chr{1 + i % 3} {i} {i + 2} {'xy'[i // 3 % 2]}" for i in range(12)]
    path = bed(tmp_path, *rows)
    data = IntervalDataModule(fasta, path, val_chromosomes=["2"], test_chromosomes=["chr3"], tokenizer=PLAIN)
    data.setup("fit")
    data.setup("test")
    assert data.class_names == ["x", "y"]
    for dataset, contig in ((data.train_set, "chr1"), (data.val_set, "chr2"), (data.test_set["test"], "chr3")):
        table = dataset.table
        assert {table.contigs[i] for i in table.contig} == {contig}
        assert texts(dataset) == [GENOME[contig][a:b] for a, b in zip(table.start, table.end, strict=True)]
        assert dataset.targets.tolist() == [0, 1, 0, 1]
    whole = IntervalDataModule(fasta, path, test_chromosomes=["chr3"], val_fraction=0.25, tokenizer=PLAIN)
    whole.setup("fit")
    assert (len(whole.train_set), len(whole.val_set)) == (6, 2)
    assert not set(whole.train_set.table.lines) & set(whole.val_set.table.lines)
    assert all(table.contigs[i] != "chr3" for table in (whole.train_set.table,) for i in table.contig)


def test_overlaps_are_those_of_sets_of_bases() -> None:
    """Against sets of (contig, base), for intervals of any order and length, also beyond the ends of contigs."""
    generator = np.random.default_rng(1)

    def table(count: int, contigs: tuple[str, ...]) -> IntervalTable:
        start = generator.integers(-5, 300, count)
        whole = {"start": start, "end": start + generator.integers(1, 12, count)}
        whole |= {"contig": generator.integers(0, len(contigs), count)}
        rest = dict.fromkeys(("reader", "reverse", "source", "lines", "names"), np.zeros(count, dtype=np.int64))
        return IntervalTable("x", PLAIN, (), contigs, ("x",), **whole, **rest)

    def bases(table: IntervalTable, row: int) -> set[tuple[str, int]]:
        return {(table.contigs[table.contig[row]], base) for base in range(table.start[row], table.end[row])}

    mine, theirs = table(200, ("a", "b", "c")), table(40, ("c", "d", "a"))
    taken = {base for row in range(40) for base in bases(theirs, row)}
    wanted = [bool(bases(mine, row) & taken) for row in range(200)]
    assert 20 < sum(wanted) < 180
    assert mine.overlaps(theirs).tolist() == wanted


@pytest.mark.parametrize("width", [None, 4])
def test_overlapping_splits_are_told(
    tmp_path: Path, fasta: str, caplog: pytest.LogCaptureFixture, width: int | None
) -> None:
    train = bed(tmp_path, "chr1 0 4 a", "chr1 8 12 b", "chr2 0 4 a", "chr2 4 6 b", name="train.bed")
    val = bed(tmp_path, "1 4 6 a 0 -", "1 11 13 b 0 -", "chr3 0 4 a", name="val.bed")
    test = bed(tmp_path, "chr3 0 4 a", "chr2 0 2 b", name="test.bed")
    files: dict[str, Any] = {"train_bed": train, "val_bed": val, "test_bed": test, "width": width, "tokenizer": PLAIN}
    data = IntervalDataModule(fasta, **files)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    # With a width of 4, 4-6 becomes 3-7 and reaches into 0-4.
    assert f"{1 if width is None else 2} of 3 validation intervals overlap training intervals" in caplog.text
    assert "1 of 2 test intervals overlap training intervals" in caplog.text
    caplog.clear()
    data = IntervalDataModule(fasta, class_names=["a", "b"], **files)
    with caplog.at_level(logging.WARNING):
        data.setup("test")
    assert "1 of 2 test intervals overlap" in caplog.text
    caplog.clear()
    # One held out of others that lie on it.
    close = bed(tmp_path, *(f"chr1 {i} {i + 9} {'ab'[i % 2]}" for i in range(8)), name="close.bed")
    with caplog.at_level(logging.WARNING):
        IntervalDataModule(fasta, train_bed=close, val_fraction=0.25, tokenizer=PLAIN).setup("fit")
        assert "2 of 2 validation intervals overlap" in caplog.text
        caplog.clear()
        apart = IntervalDataModule(fasta, train, val_chromosomes=["chr2"], tokenizer=PLAIN)
        apart.setup("fit")
        IntervalDataModule(fasta, predict_bed=train, train_bed=train, tokenizer=PLAIN).setup("predict")
    assert "overlap" not in caplog.text


def test_prediction_needs_no_targets(tmp_path: Path, fasta: str) -> None:
    path = bed(tmp_path, "chr1 0 4", "chr2 3 5 . . -", "chr3 1 3 peak x")
    data = IntervalDataModule(fasta, predict_bed=path, target="values", tokenizer=PLAIN, batch_size=3)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [batch["name"] for batch in batches] == [["chr1:0-4"], ["chr2:3-5", "peak"]]
    assert [batch["index"].tolist() for batch in batches] == [[0], [1, 2]]
    assert "labels" not in batches[0]
    assert PLAIN.decode(batches[1]["input_ids"][0]) == reverse_complement("TT")


# Targets


def test_numbers_in_columns(tmp_path: Path, fasta: str) -> None:
    path = bed(tmp_path, *(f"chr1 {i} {i + 3} n{i} {i / 4} + {-i}" for i in range(10)))
    data = IntervalDataModule(fasta, train_bed=path, target="values", tokenizer=PLAIN)
    data.setup("fit")
    assert data.class_names == ["score"]
    where = {**dict(zip(data.train_set.table.start, data.train_set.targets[:, 0], strict=True))}
    where |= dict(zip(data.val_set.table.start, data.val_set.targets[:, 0], strict=True))
    assert where == {i: i / 4 for i in range(10)}
    two = IntervalDataModule(
        fasta, train_bed=path, val_bed=path, target="values", bed_columns=[7, 5], class_names=["down", "up"]
    )
    two.setup("fit")
    assert two.val_set.targets.tolist() == [[-i, i / 4] for i in range(10)]
    assert two.class_names == ["down", "up"]
    batch = next(iter(two.val_dataloader()[0]))
    assert (batch["labels"].dtype, tuple(batch["labels"].shape)) == (torch.float32, (10, 2))


def test_targets_joined_by_name(tmp_path: Path, fasta: str) -> None:
    path = bed(tmp_path, "chr1 0 4 b", "chr1 4 8 a")
    table = tmp_path / "targets.tsv"
    table.write_text("name\tCTCF\tDNase\tnote\na\t1\t0\tx\nb\t0\t1\ty\nc\t1\t1\tz\n")
    options: dict[str, Any] = {"targets_file": str(table), "tokenizer": PLAIN}
    data = IntervalDataModule(fasta, test_bed=path, target="labels", label_columns=["CTCF", "DNase"], **options)
    data.setup("test")
    assert data.test_set["test"].targets.tolist() == [[0, 1], [1, 0]]
    classes = IntervalDataModule(fasta, test_bed=path, label_column="note", class_names=["x", "y"], **options)
    classes.setup("test")
    assert classes.test_set["test"].targets.tolist() == [1, 0]
    bed(tmp_path, "chr1 0 4 b", "chr1 4 8 other")
    with pytest.raises(UserError, match=r"regions\.bed:4: 'other' \(column 4\) has no row in .*targets\.tsv"):
        IntervalDataModule(fasta, test_bed=path, label_column="note", class_names=["x", "y"], **options).setup("test")
    table.write_text("name\tCTCF\nb\t0\nb\t1\n")
    with pytest.raises(UserError, match=r"targets\.tsv:3: name 'b' occurs twice"):
        IntervalDataModule(fasta, test_bed=path, target="values", label_column="CTCF", **options).setup("test")
    with pytest.raises(UserError, match=r"targets\.tsv:1: no column 'score'"):
        IntervalDataModule(fasta, test_bed=path, target="values", label_column="score", **options).setup("test")


def test_tables_of_targets_are_read_like_tables_of_sequences(tmp_path: Path, fasta: str) -> None:
    """Quotes mean nothing between tabs; what is broken is one line with the file's name."""
    path = bed(tmp_path, 'chr1 0 4 "b', "chr1 4 8 a")

    def targets(name: str, text: str, **options: Any) -> Any:
        table = tmp_path / name
        table.write_text(text)
        data = IntervalDataModule(
            fasta, test_bed=path, train_bed=path, targets_file=str(table), tokenizer=PLAIN, **options
        )
        data.setup("test")
        return data.test_set["test"].targets.tolist()

    assert targets("t.tsv", 'name\tlabel\tnote\n"b\t0.5\tx"y\na\t2\t"\n', target="values") == [[0.5], [2]]
    assert targets("t.csv", 'name,label\n"""b",0.5\na,2\n', target="values") == [[0.5], [2]]
    long = "x" * 200_000
    assert targets("t.tsv", f'name\tnote\tlabel\n"b\t{long}\t1\na\t\t2\n', target="values") == [[1], [2]]
    for name, text, told in (
        ("t.csv", 'name,label\n"b,0.5\na,2\n', r"t\.csv:3: cannot be read as a table"),
        ("t.csv", "name,label,name\nb,0.5,c\n", r"t\.csv:1: two columns are named 'name'"),
        ("t.tsv", 'name\tlabel\n"b\t.\na\t.\n', r"t\.tsv: no record has a label in column 'label'"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            targets(name, text, target="labels" if "." in text else "values")
        assert "\n" not in str(caught.value)


def test_listed_labels_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("sequence\tlabel\nA\tT;H\nC\t.\nG\tH, D\nT\tD\n")
    data = SequenceTableDataModule(train_file=str(path), val_file=str(path), target="labels", tokenizer=PLAIN)
    data.setup("fit")
    assert data.class_names == ["D", "H", "T"]
    assert data.train_set.targets.dtype == np.uint8
    assert data.train_set.targets.tolist() == [[0, 1, 1], [0, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert data.val_set.targets.tolist() == data.train_set.targets.tolist()
    other = SequenceTableDataModule(
        train_file=str(path), val_file=str(path), target="labels", class_names=["T", "D", "H"], tokenizer=PLAIN
    )
    other.setup("fit")
    assert other.train_set.targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 1], [0, 1, 0]]


def test_numbered_labels_sort_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("sequence\tlabel\nA\t10;9\nC\t100\n")
    data = SequenceTableDataModule(train_file=str(path), val_file=str(path), target="labels")
    data.setup("fit")
    assert data.class_names == ["9", "10", "100"]
    assert data.train_set.targets.tolist() == [[1, 1, 0], [0, 0, 1]]


def test_919_columns_stay_small(tmp_path: Path) -> None:
    """DeepSEA's shape: a byte for each label, no object for a cell."""
    generator = np.random.default_rng(0)
    wanted = (generator.random((40, 919)) < 0.02).astype(int)
    columns = [f"l{i}" for i in range(919)]
    path = tmp_path / "train.tsv"
    rows = ["\t".join(["ACGT" * 5, *map(str, row)]) for row in wanted]
    path.write_text("\n".join(["\t".join(["sequence", *columns]), *rows]) + "\n")
    data = SequenceTableDataModule(
        train_file=str(path), target="labels", label_columns=columns, val_fraction=0.25, tokenizer=PLAIN, batch_size=30
    )
    data.setup("fit")
    train, val = data.train_set, data.val_set
    assert (train.targets.dtype, train.targets.nbytes, len(val)) == (np.uint8, 30 * 919, 10)
    assert train.table.labels is None
    assert np.array_equal(train.targets, wanted[train.table.lines - 2])
    assert np.array_equal(val.targets, wanted[val.table.lines - 2])
    (batch,) = data.train_dataloader()
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].sum() == train.targets.sum()


# Bad input


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("chr1 5 5 a", r"regions\.bed:3: start 5 is not before end 5"),
        ("chr1 7 5 a", r"regions\.bed:3: start 7 is not before end 5"),
        ("chr1 5 21 a", r"regions\.bed:3: end 21 lies beyond chr1, which has 20 bases"),
        ("chr7 5 6 a", r"regions\.bed:3: contig 'chr7' is not in .*genome\.fa"),
        ("chr1 x 6 a", r"regions\.bed:3: start 'x' is not a whole number"),
        ("chr1 5 6", r"regions\.bed:3: 3 tab-separated column\(s\), column 4 is needed"),
        ("chr1 5", r"regions\.bed:3: 2 tab-separated column\(s\), column 4 is needed"),
        ("chr1 5 6 a 0 *", r"regions\.bed:3: strand '\*' is not"),
    ],
)
def test_intervals_wrong(tmp_path: Path, fasta: str, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        IntervalDataModule(fasta, train_bed=bed(tmp_path, row)).setup("fit")
    assert "\n" not in str(caught.value)


def test_intervals_of_nothing_but_n(tmp_path: Path) -> None:
    """The base in the middle may be N; a width widens what is looked at, and chromosomes that are not read do not."""
    (tmp_path / "n.fa").write_text(f">chr1\nACGT{'N' * 12}ACGT\n>chr2\n{'N' * 20}\n")
    path = bed(tmp_path, "chr1 2 18 a 0 -", "chr1 0 4 b", "chr1 6 12 a", "chr2 3 9 b")

    def ready(stage: str = "fit", **options: Any) -> None:
        IntervalDataModule(str(tmp_path / "n.fa"), tokenizer=PLAIN, **options).setup(stage)

    told = r"regions\.bed:5: interval 'a': the sequence holds no A, C, G or T, so .*; remove it"
    for options in ({"bed": path, "val_chromosomes": ["chr2"]}, {"train_bed": path, "width": 8}):
        with pytest.raises(UserError, match=told):
            ready(**options)
    with pytest.raises(UserError, match=told):
        ready("predict", predict_bed=path)
    with pytest.raises(UserError, match=r"regions\.bed:6: interval 'b'"):
        ready("test", bed=path, width=14, test_chromosomes=["chr2"], class_names=["a", "b"])
    ready(bed=path, width=14, test_chromosomes=["chr2"], val_fraction=0.4)


@pytest.mark.parametrize("cell", ["high", "", "nan", "inf"])
def test_a_target_that_is_no_number(tmp_path: Path, fasta: str, cell: str) -> None:
    path = bed(tmp_path, "chr1 0 4 a 1.5", f"chr1 0 4 a {cell}")
    with pytest.raises(UserError, match=rf"regions\.bed:4: '{cell}' in column 'score' is no number"):
        IntervalDataModule(fasta, train_bed=path, target="values").setup("fit")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("sequence\tlabel\nA\t\n", {"target": "labels"}, r"t\.tsv:2: column 'label' is empty; .* has '\.' there"),
        ("sequence\tlabel\nA\ta;\n", {"target": "labels"}, r"t\.tsv:2: 'a;' has an empty label"),
        ("sequence\tlabel\nA\ta;a\n", {"target": "labels"}, r"t\.tsv:2: 'a;a' has 'a' twice"),
        ("sequence\tlabel\nA\t.\n", {"target": "labels"}, r"t\.tsv: no record has a label in column 'label'"),
        (
            "sequence\tlabel\nA\tc\n",
            {"target": "labels", "class_names": ["a", "b"]},
            r"t\.tsv:2: label 'c' is not among",
        ),
        ("sequence\ta\nA\t2\n", {"target": "labels", "label_columns": ["a"]}, r"t\.tsv:2: '2' in label column 'a'"),
        ("sequence\ta\nA\t2\n", {"target": "values", "label_columns": ["b"]}, r"t\.tsv:1: no column 'b'"),
        ("sequence\tlabel\nA\tx\n", {"target": "values"}, r"t\.tsv:2: 'x' in column 'label' is no number"),
    ],
)
def test_tables_wrong(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        SequenceTableDataModule(train_file=str(path), val_file=str(path), **options).setup("fit")


def test_arguments_wrong(tmp_path: Path, fasta: str) -> None:
    path = bed(tmp_path, "chr1 0 4 a", "chr2 0 4 b")

    def refused(message: str, **options: Any) -> None:
        with pytest.raises(UserError, match=message):
            IntervalDataModule(fasta, **options).setup("fit")

    refused("exclude each other", bed=path, train_bed=path)
    refused("give bed, or remove them", train_bed=path, val_chromosomes=["chr1"])
    refused("is in val_chromosomes and in test_chromosomes", bed=path, val_chromosomes=["1"], test_chromosomes=["1"])
    refused("'chr1' is in val_chromosomes and in", bed=path, val_chromosomes=["chr1"], test_chromosomes=["1"])
    refused("width=0 must be", bed=path, width=0)
    refused("bed_column counts from 1", bed=path, bed_column=3)
    refused("no interval for the train split", bed=path, val_chromosomes=["chr1"], test_chromosomes=["chr2"])
    refused("no interval for the val split", bed=path, val_chromosomes=["chr3"])
    refused("val_chromosomes: contig 'chr9' is not in", bed=path, val_chromosomes=["chr9"])
    refused("label_columns are for target", bed=path, bed_columns=[4, 5])
    with pytest.raises(UserError, match=r"class_names has 1 name\(s\) for 2 column\(s\)"):
        SequenceTableDataModule(train_file="x", target="values", label_columns=["a", "b"], class_names=["a"])
    with pytest.raises(UserError, match="target='colour' is not"):
        SequenceTableDataModule(train_file="x", target="colour")  # type: ignore[arg-type]


def test_windows_grow_around_their_centres(tmp_path: Path) -> None:
    text = "".join("ACGT"[i * i % 7 % 4] for i in range(200))
    (tmp_path / "g.fa").write_text(f">c\n{text}\n>d\n{text}\n")
    (tmp_path / "r.bed").write_text("c\t90\t101\ta\nc\t3\t6\tb\nd\t50\t60\ta\n")
    options = {"val_chromosomes": ["d"], "width": 8, "length_buckets": False}
    module = IntervalDataModule(fasta=str(tmp_path / "g.fa"), bed=str(tmp_path / "r.bed"), **options)
    module.setup("fit")
    module.set_stage(20, 1)
    assert module.train_set is not None
    symbols = [module.train_set[index]["symbols"] for index in range(2)]
    assert module.tokenizer.decode(symbols[0]) == text[95 - 10 : 95 + 10]
    assert module.tokenizer.decode(symbols[1]) == "N" * 6 + text[: 4 + 10]
    assert len(module.val_set[0]["symbols"]) == 8
