"""The classification data module: packaged sets, own files, classes, hold-out, lengths, prediction."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey
from longscan.genomics.data.classification import SequenceTableDataModule
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement_ids

NONE = DNATokenizer(special_tokens="none")


def module(stage: str | None = None, **options: Any) -> SequenceTableDataModule:
    result = SequenceTableDataModule(**options)
    result.setup(stage)
    return result


def write(path: Path, rows: list[tuple[str, str]], header: str = "sequence\tlabel") -> str:
    path.write_text(header + "\n" + "".join(f"{sequence}\t{label}\n" for sequence, label in rows))
    return str(path)


def labels(dataset: Any) -> list[int]:
    return [int(target) for target in dataset.targets]


# The packaged sets


def test_packaged_splice_sites() -> None:
    data = module(dataset="splice_sites_200", batch_size=64)
    assert data.class_names == ["decoy", "donor", "acceptor"]
    assert data.num_classes == 3
    assert data.test_names == ["test", "test_arenosa"]
    sizes = [len(s) for s in (data.train_set, data.val_set, *data.test_set.values())]
    assert sizes == [24_000, 3_000, 6_000, 6_000]
    seen = np.zeros(3, dtype=int)
    for batch in data.train_dataloader():
        assert batch["input_ids"].shape[1] == 201
        assert batch["mask"].all()
        seen += np.bincount(batch["labels"], minlength=3)
    assert seen.tolist() == [8_000, 8_000, 8_000]
    # Donors have GT at index 100, so the label follows the sequence through loader and shuffling.
    donors = batch["input_ids"][batch["labels"] == 1]
    assert (donors[:, 100] == 9).all()
    assert (donors[:, 101] == 10).all()
    assert len(data.test_dataloader()) == 2


def test_packaged_coding_and_the_names_before_setup() -> None:
    data = SequenceTableDataModule(dataset="coding_vs_intergenic_200")
    assert data.num_classes == 2
    assert data.class_names == ["intergenic", "coding"]


def test_batches_do_not_depend_on_the_number_of_workers_and_change_with_the_epoch() -> None:
    options: dict[str, Any] = {"dataset": "splice_sites_200", "limit_train": 200, "batch_size": 32, "rc_augment": True}
    loader = module("fit", **options).train_dataloader()
    first, second = list(loader), list(loader)
    parallel = module("fit", num_workers=2, **options).train_dataloader()
    for batch, other in zip([*first, *second], [*parallel, *parallel], strict=True):
        for name in ("input_ids", "mask", "labels"):
            assert torch.equal(batch[name], other[name])
    assert not torch.equal(first[0]["labels"], second[0]["labels"])
    assert sorted(torch.cat([b["labels"] for b in first])) == sorted(torch.cat([b["labels"] for b in second]))


def test_limit_train_takes_the_first_of_a_shuffled_order() -> None:
    small = module("fit", dataset="splice_sites_200", limit_train=50).train_set
    large = module("fit", dataset="splice_sites_200", limit_train=90).train_set
    other = module("fit", dataset="splice_sites_200", limit_train=50, seed=1).train_set
    assert small.table.lines.tolist() == large.table.lines.tolist()[:50]
    assert small.table.lines.tolist() != other.table.lines.tolist()
    assert len(set(labels(small))) == 3
    assert (np.diff(small.table.lines) < 0).any()


# Classes


def test_classes_are_sorted_and_integers_numerically(tmp_path: Path) -> None:
    numbers = write(tmp_path / "n.tsv", [("A", "10"), ("C", "9"), ("G", "-1"), ("T", "10")] * 5)
    assert module("fit", train_file=numbers).class_names == ["-1", "9", "10"]
    words = write(tmp_path / "w.tsv", [("A", "yes"), ("C", "10"), ("G", "9"), ("T", "yes")] * 5)
    data = module("fit", train_file=words, val_file=words)
    assert data.class_names == ["10", "9", "yes"]
    assert labels(data.train_set)[:4] == [2, 0, 1, 2]


def test_given_classes_are_names_or_stand_for_indices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", [("A", "yes"), ("C", "no")] * 5)
    data = module("fit", train_file=path, val_file=path, class_names=["yes", "no", "never"])
    assert data.num_classes == 3
    assert labels(data.train_set)[:2] == [0, 1]
    path = write(tmp_path / "b.tsv", [("A", "1"), ("C", "0")] * 5)
    assert labels(module("fit", train_file=path, val_file=path, class_names=["x", "y"]).train_set)[:2] == [1, 0]
    assert labels(module("fit", train_file=path, val_file=path, class_names=["1", "0"]).train_set)[:2] == [0, 1]


def test_unseen_labels_are_an_error(tmp_path: Path) -> None:
    train = write(tmp_path / "train.tsv", [("A", "a"), ("C", "b")] * 5)
    other = write(tmp_path / "other.tsv", [("A", "a"), ("C", "c")])
    message = r"other\.tsv:3: label 'c' is not among the labels of the training file: a, b"
    with pytest.raises(UserError, match=message):
        module("fit", train_file=train, val_file=other)
    with pytest.raises(UserError, match=message):
        module("test", train_file=train, test_file=other)
    with pytest.raises(UserError, match="label 'c' is not among the given class names: a, d"):
        module("test", test_file=other, class_names=["a", "d"])
    with pytest.raises(UserError, match="the classes are unknown without training data"):
        module("test", test_file=other)
    only = write(tmp_path / "only.tsv", [("A", "a"), ("C", "a")] * 5)
    with pytest.raises(UserError, match=r"only\.tsv: only one class, 'a'"):
        module("fit", train_file=only)


# Files


def test_a_folder_with_extra_tests(tmp_path: Path) -> None:
    rows = [("ACG", "a"), ("CGT", "b")] * 10
    for name in ("train", "val", "test", "test_moss"):
        write(tmp_path / f"{name}.tsv", rows)
    fern = write(tmp_path / "anything.tsv", rows[:4])
    data = module(folder=str(tmp_path), extra_tests={"fern": fern})
    assert data.test_names == ["test", "test_moss", "fern"]
    assert [len(dataset) for dataset in data.test_set.values()] == [20, 20, 4]
    write(tmp_path / "val.csv", rows)
    with pytest.raises(UserError, match=r"both val\.csv and val\.tsv could be the val table"):
        module(folder=str(tmp_path))


def test_hold_out_is_stratified_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = write(tmp_path / "a.tsv", [("ACGT", "a")] * 100 + [("GGGG", "b")] * 20)
    with caplog.at_level(logging.INFO):
        data = module("fit", train_file=train, val_fraction=0.2)
    assert np.bincount(labels(data.val_set)).tolist() == [20, 4]
    assert np.bincount(labels(data.train_set)).tolist() == [80, 16]
    assert not set(data.val_set.table.lines) & set(data.train_set.table.lines)
    assert "24 of the 120 rows" in caplog.text
    again = module("fit", train_file=train, val_fraction=0.2)
    assert again.val_set.table.lines.tolist() == data.val_set.table.lines.tolist()
    other = module("fit", train_file=train, val_fraction=0.2, seed=3)
    assert other.val_set.table.lines.tolist() != data.val_set.table.lines.tolist()
    tiny = write(tmp_path / "b.tsv", [("ACGT", "a"), ("GGGG", "b")])
    with pytest.raises(UserError, match=r"b\.tsv: 2 rows are too few to hold out 0\.1"):
        module("fit", train_file=tiny)


# Samples


def test_lengths_and_padding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", [("ACGTA", "a"), ("C", "b"), ("GG", "a")])
    common: dict[str, Any] = {"train_file": path, "val_file": path, "batch_size": 3, "length_buckets": False}
    (batch,) = module("fit", **common).val_dataloader()[0]
    assert batch["input_ids"].tolist() == [[7, 8, 9, 10, 7, 1], [4, 4, 4, 4, 8, 1], [4, 4, 4, 9, 9, 1]]
    assert batch["mask"].sum(1).tolist() == [6, 2, 3]
    assert batch["labels"].tolist() == [0, 1, 0]
    message = r"a\.tsv:2: the sequence has 5 bases but max_length=4 has room for 3"
    with pytest.raises(UserError, match=message):
        module("fit", max_length=4, **common)
    (first,) = module("fit", max_length=4, long_sequences="first", **common).val_dataloader()[0]
    assert first["input_ids"].tolist() == [[7, 8, 9, 1], [4, 4, 8, 1], [4, 9, 9, 1]]
    (centre,) = module("fit", max_length=4, long_sequences="center", **common).val_dataloader()[0]
    assert centre["input_ids"][0].tolist() == [8, 9, 10, 1]
    (wide,) = module(
        "fit", max_length=8, padding="max_length", tokenizer=DNATokenizer(padding_side="right"), **common
    ).val_dataloader()[0]
    assert wide["input_ids"][1].tolist() == [8, 1, 4, 4, 4, 4, 4, 4]


def test_the_longest_input(tmp_path: Path) -> None:
    """Of the sets that are ready, with special tokens; where an option decides, the option."""
    short, long = (
        write(tmp_path / "a.tsv", [("AC", "a"), ("G", "b")]),
        write(tmp_path / "b.tsv", [("A", "a"), ("ACGT", "b")]),
    )
    common: dict[str, Any] = {"train_file": short, "val_file": long, "test_file": short}
    data = module("fit", **common)
    assert data.longest_input()[:2] == (5, f"{long}:3: record '2'")
    assert "data.max_length and data.long_sequences" in data.longest_input()[2]
    data = module("test", tokenizer=NONE, class_names=["a", "b"], **common)
    assert data.longest_input()[:2] == (2, f"{short}:2: record '1'")
    cut = ("data.max_length=4", "lower it by as many")
    assert module("fit", max_length=4, long_sequences="first", **common).longest_input() == (4, *cut)
    assert module("fit", max_length=5, **common).longest_input()[:2] == (5, f"{long}:3: record '2'")
    data = module("test", max_length=4, padding="max_length", class_names=["a", "b"], **common)
    assert data.longest_input() == (4, *cut)


def test_reverse_complement_only_in_training_and_only_on_demand() -> None:
    plain = module(dataset="coding_vs_intergenic_200", tokenizer=NONE)
    augmented = module(dataset="coding_vs_intergenic_200", tokenizer=NONE, rc_augment=True)
    flipped = 0
    for index in range(1000):
        key = SampleKey(1, index)
        a, b = plain.train_set[key]["symbols"], augmented.train_set[key]["symbols"]
        assert np.array_equal(a, plain.train_set.table[index])
        if not np.array_equal(a, b):
            assert np.array_equal(reverse_complement_ids(a), b)
            flipped += 1
        assert np.array_equal(plain.val_set[key]["symbols"], augmented.val_set[key]["symbols"])
    assert flipped == pytest.approx(500, abs=60)


# Prediction


def test_prediction_from_table_and_fasta(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(">x one\nAC\nG\n>y\nT\n")
    (batch,) = module("predict", predict_file=str(tmp_path / "a.fa"), length_buckets=False).predict_dataloader()
    assert batch["name"] == ["x", "y"]
    assert batch["index"].tolist() == [0, 1]
    assert batch["input_ids"].tolist() == [[7, 8, 9, 1], [4, 4, 10, 1]]
    assert "labels" not in batch
    (tmp_path / "b.csv").write_text("id,sequence\nq,AC\n")
    (batch,) = module("predict", predict_file=str(tmp_path / "b.csv")).predict_dataloader()
    assert batch["name"] == ["q"]
    assert "labels" not in batch
    labelled = write(tmp_path / "c.tsv", [("A", "no"), ("C", "yes")])
    data = module("predict", predict_file=labelled)
    assert "labels" not in next(iter(data.predict_dataloader()))
    assert data.predict_set.table.labels.tolist() == ["no", "yes"]
    data = module("predict", predict_file=labelled, class_names=["yes", "no"])
    assert next(iter(data.predict_dataloader()))["labels"].tolist() == [1, 0]


def test_the_module_reaches_spawned_loader_processes(tmp_path: Path) -> None:
    data = module("fit", dataset="splice_sites_200")
    sample = [data.val_set[0]]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.collate(sample)["input_ids"], data.collate(sample)["input_ids"])
    assert len(pickle.dumps(data)) < 10_000


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no data: give dataset, folder"),
        ({"dataset": "splice"}, "unknown dataset 'splice' .*splice_sites_200"),
        ({"dataset": "splice_sites_200", "folder": "x"}, "exclude each other"),
        ({"folder": "nowhere"}, "nowhere: no such folder"),
        ({"train_file": "nothing.tsv"}, r"nothing\.tsv: no such file"),
        ({"dataset": "splice_sites_200", "long_sequences": "cut"}, "long_sequences='cut'"),
        ({"dataset": "splice_sites_200", "padding": "left"}, "padding='left'"),
        ({"dataset": "splice_sites_200", "padding": "max_length"}, "padding='max_length' needs max_length"),
        ({"dataset": "splice_sites_200", "max_length": 1}, "max_length=1 has no room"),
        ({"dataset": "splice_sites_200", "max_length": 200}, r"train\.tsv\.gz:2: the sequence has 200 bases"),
        ({"dataset": "splice_sites_200", "val_fraction": 1.0}, r"val_fraction=1\.0"),
        ({"dataset": "splice_sites_200", "limit_train": 0}, "limit_train=0"),
        ({"dataset": "splice_sites_200", "extra_tests": {"val": "x"}}, "'val' is the name of a standard file"),
        ({"dataset": "splice_sites_200", "class_names": ["a", "a"]}, "a name occurs twice"),
        ({"dataset": "splice_sites_200", "sequence_column": "dna"}, "no column 'dna'; there are: label, chrom, start"),
        (
            {"dataset": "splice_sites_200", "class_names": ["a", "b"]},
            r"train\.tsv\.gz:2: label '2' is not among the given",
        ),
        ({"stage": "predict", "dataset": "splice_sites_200"}, "nothing to predict; give predict_file"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        module(**options)
    assert "\n" not in str(caught.value)


def test_each_verb_names_the_file_it_lacks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", [("A", "a"), ("C", "b")] * 5)
    with pytest.raises(UserError, match="no test data; give test_file"):
        module("test", train_file=path)
    for stage, message in (("fit", "no training data; give train_file"), ("validate", "no validation data")):
        with pytest.raises(UserError, match=message):
            module(stage, test_file=path, class_names=["a", "b"])
    assert module("validate", val_file=path, class_names=["a", "b"]).val_set is not None


def test_a_short_training_run_sees_the_batches(tmp_path: Path) -> None:
    """The module works in a Trainer: fit, test on two sets and predict."""
    import lightning.pytorch as pl

    class Linear(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(12, 3)
            self.seen: list[str] = []

        def forward(self, batch: dict[str, Any]) -> torch.Tensor:
            return self.layer(torch.nn.functional.one_hot(batch["input_ids"], 12).float().mean(1))

        def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self(batch), batch["labels"])

        def validation_step(self, batch: dict[str, Any], index: int) -> None:
            assert batch["labels"].shape == (500,)

        def test_step(self, batch: dict[str, Any], index: int, dataloader_idx: int = 0) -> None:
            self.log("accuracy", (self(batch).argmax(1) == batch["labels"]).float().mean())

        def predict_step(self, batch: dict[str, Any], index: int) -> list[str]:
            return batch["name"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    (tmp_path / "a.fa").write_text(">x\nACG\n>y\nT\n")
    data = SequenceTableDataModule(
        dataset="splice_sites_200", limit_train=64, predict_file=str(tmp_path / "a.fa"), batch_size=500
    )
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    model = Linear()
    trainer.fit(model, data)
    results = trainer.test(model, data, verbose=False)
    assert [list(result) for result in results] == [["accuracy/dataloader_idx_0"], ["accuracy/dataloader_idx_1"]]
    assert trainer.predict(model, data) == [["x"], ["y"]]  # of unequal length, so in batches of their own
