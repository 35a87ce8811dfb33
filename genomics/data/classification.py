"""Supervised classification of DNA sequences from tables."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ...core.errors import UserError
from ...core.training.data import ResumableDataModule
from ...core.training.folds import check_folds, stratified_folds
from ...core.training.hold_out import chosen_rows
from ...core.training.metrics import IGNORED
from ..datasets import DATASETS, dataset_path
from ..tokenizer import MASK, DNATokenizer
from .asked_model import model_tokenizer
from .augmentation import SequenceAugmentation
from .files import known_names
from .samples import SequenceDataset
from .tables import Records, is_fasta, read_fasta_table, read_table
from .target_columns import TargetKind, TargetReader, is_integer, sorted_labels, target_reader

logger = logging.getLogger(__name__)

_TABLE_NAME = re.compile(r"(?P<name>(train|val|test|test_\w+))\.(tsv|csv)(\.gz)?", re.ASCII)


class SequenceTableDataModule(ResumableDataModule):
    """Sequences with a class, several labels or numbers to predict, from TSV or CSV tables.

    A batch is ``{"input_ids": int64 (batch, length), "mask": bool (batch, length), "labels": int64 (batch,)}``, for
    several labels and for numbers ``"labels"`` is float32 (batch, targets); in prediction it also has ``"name"`` (list
    of str) and ``"index"`` (int64, row), and labels only if the file has them.

    The tables are given by ``dataset`` (a packaged one), by ``folder`` (files named train, val, test and
    ``test_<name>``, with .tsv or .csv, and .gz if need be), or one by one; a file given by name goes before the
    folder's. Further test sets (``test_<name>`` of a folder, and ``extra_tests``) are further test loaders, in the
    order of `test_names`. Without validation data, ``val_fraction`` of the training rows are held out, class by class.

    Args:
        dataset: ``"splice_sites_200"`` or ``"coding_vs_intergenic_200"``.
        folder: folder of tables.
        train_file: table to train on; the classes come from it.
        val_file: table to validate on.
        test_file: table to test on.
        extra_tests: name to file of further test sets.
        predict_file: table, labelled or not, or FASTA file.
        sequence_column: name of the sequence column.
        label_column: name of the column with the class, the labels or the number to predict.
        target: what is predicted: one ``"class"``; any number of ``"labels"``, listed in the label column with ``;`` or
            ``,`` between them and ``.`` for none; or ``"values"``, numbers.
        label_columns: several columns in place of one: 0 or 1 for each of the labels, or numbers.
        name_column: name of the column with record names; ``name`` or ``id`` where None and there is one, otherwise
            records are named by their number.
        class_names: names of the classes (or labels, or targets) in the order of their indices. Classes in the files
            are these names, or, if no name is a number, indices 0, 1, … Where None: the sorted classes of the training
            file (numbers as numbers).
        tokenizer: how characters become ids. Where None: in training upper-cased with IUPAC codes as N, otherwise as
            the weights were trained.
        max_length: the most tokens per sequence, special tokens included.
        long_sequences: what becomes of longer ones: ``"error"``, their ``"first"`` bases, or their ``"center"``.
        padding: pad a batch to its ``"longest"`` sequence or to ``"max_length"``.
        length_buckets: put only sequences of one length into a batch of evaluation or prediction, so that what is said
            of a record does not depend on how far its neighbours pad it (mixers read padding).
        rc_augment: show the reverse complement of training sequences with probability 0.5. Wrong where the class
            depends on the strand, as it does for splice sites.
        augmentation: further changes of training sequences.
        val_fraction: share of the training rows held out where there is no validation file.
        limit_train: use only this many training rows, the first of an order shuffled by ``seed``.
        folds: cross-validation: the training rows (those that ``limit_train`` leaves) are dealt out to so many folds,
            class by class, by ``seed``; ``fold`` is validated on in place of any validation file.
        fold: which of them, from 0.
        batch_size: samples per step and process in training.
        eval_batch_size: samples per batch in evaluation; ``batch_size`` where None.
        num_workers: loader processes.
        seed: of the order, the augmentation, the held-out rows and ``limit_train``.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the files, with file and line.
    """

    def __init__(
        self,
        dataset: str | None = None,
        folder: str | None = None,
        train_file: str | None = None,
        val_file: str | None = None,
        test_file: str | None = None,
        extra_tests: dict[str, str] | None = None,
        predict_file: str | None = None,
        sequence_column: str = "sequence",
        label_column: str = "label",
        name_column: str | None = None,
        class_names: list[str] | None = None,
        tokenizer: DNATokenizer | None = None,
        max_length: int | None = None,
        long_sequences: Literal["error", "first", "center"] = "error",
        padding: Literal["longest", "max_length"] = "longest",
        rc_augment: bool = False,
        val_fraction: float = 0.1,
        limit_train: int | None = None,
        target: TargetKind = "class",
        label_columns: list[str] | None = None,
        length_buckets: bool = True,
        folds: int | None = None,
        fold: int = 0,
        augmentation: SequenceAugmentation | None = None,
        *,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        self.tokenizer, self._follows_model = tokenizer or DNATokenizer(), tokenizer is None
        self.sequence_column, self.label_column, self.name_column = sequence_column, label_column, name_column
        self.max_length, self.long_sequences, self.padding = max_length, long_sequences, padding
        self.rc_augment, self.val_fraction, self.limit_train = rc_augment, val_fraction, limit_train
        self.target, self.label_columns, self.length_buckets = target, label_columns, length_buckets
        self.folds, self.fold, self.augmentation = folds, fold, augmentation
        check_folds(folds, fold)
        self._check(dataset, folder)
        self._meta_classes: list[str] | None = None
        self.files: dict[str, str] = {}
        if dataset is not None:
            folder = str(dataset_path(dataset))
            self._meta_classes = json.loads((Path(folder) / "meta.json").read_text(encoding="utf-8"))["classes"]
        if folder is not None:
            self.files = _folder_files(Path(folder).expanduser())
        given = {"train": train_file, "val": val_file, "test": test_file, "predict": predict_file}
        self.files |= {name: file for name, file in given.items() if file is not None}
        for name, file in (extra_tests or {}).items():
            if name in ("train", "val", "test", "predict"):
                raise UserError(f"extra_tests: {name!r} is the name of a standard file; choose another name")
            self.files[name] = file
        if not self.files:
            raise UserError("no data: give dataset, folder, train_file, test_file or predict_file")
        self._given_classes = class_names if class_names is not None else self._meta_classes
        if self._given_classes is None and target != "class":
            self._given_classes = label_columns or ([label_column] if target == "values" else None)
        elif class_names is not None and target != "class":
            columns = len(label_columns) if label_columns else 1 if target == "values" else len(class_names)
            if len(class_names) != columns:
                raise UserError(
                    f"class_names has {len(class_names)} name(s) for {columns} column(s); give one for each"
                )
        if self._given_classes is not None and len(set(self._given_classes)) < len(self._given_classes):
            raise UserError("class_names: a name occurs twice; every class needs its own")
        self._class_names: list[str] | None = None
        self._class_of: dict[str, int] = {}  # label as written in the files to class index

    def _check(self, dataset: str | None, folder: str | None) -> None:
        tasks = [name for name in DATASETS if "." not in name]
        if dataset is not None and folder is not None:
            raise UserError("dataset and folder exclude each other; give one")
        if dataset is not None and dataset not in tasks:
            raise UserError(f"unknown dataset {dataset!r} ({known_names(dataset, tasks)})")
        if self.target not in ("class", "labels", "values"):
            raise UserError(f"target={self.target!r} is not 'class', 'labels' or 'values'")
        if self.label_columns is not None and (self.target == "class" or not self.label_columns):
            raise UserError("label_columns are for target 'labels' or 'values', at least one; use label_column")
        if self.long_sequences not in ("error", "first", "center"):
            raise UserError(f"long_sequences={self.long_sequences!r} is not 'error', 'first' or 'center'")
        if self.padding not in ("longest", "max_length"):
            raise UserError(f"padding={self.padding!r} is not 'longest' or 'max_length'")
        if self.padding == "max_length" and self.max_length is None:
            raise UserError("padding='max_length' needs max_length; set it")
        if self.max_length is not None and self._room() < 1:
            raise UserError(f"max_length={self.max_length} has no room beside the special tokens; raise it")
        if not 0 < self.val_fraction < 1:
            raise UserError(f"val_fraction={self.val_fraction} must lie between 0 and 1")
        if self.limit_train is not None and self.limit_train < 1:
            raise UserError(f"limit_train={self.limit_train} must be at least 1")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their indices; reads the training file if ``setup`` has not yet.

        Raises:
            UserError: there is neither a training file nor class names, or something is wrong with the file.
        """
        if self._class_names is None:
            self._set_classes(self._train_table(), required=True)
        assert self._class_names is not None
        return self._class_names

    @property
    def num_classes(self) -> int:
        """Number of classes, as `class_names`."""
        return len(self.class_names)

    def setup(self, stage: str | None = None) -> None:
        """Read the tables that ``stage`` needs."""
        if self._follows_model:
            self.tokenizer = model_tokenizer(self.trainer) or self.tokenizer
        needs_train = stage in (None, "fit", "validate") or self._given_classes is None
        train = self._train_table() if needs_train else None
        self._set_classes(train, required=stage != "predict")
        if stage in (None, "fit", "validate") and self.val_set is None and train is not None:
            self._set_train_and_val(train)
        elif stage in (None, "validate") and self.val_set is None and "val" in self.files:
            self.val_set = self._labelled("val")
        if stage in (None, "test") and self.test_set is None:
            names = [name for name in self.files if name not in ("train", "val", "predict")]
            if names:
                self.test_set = {name: self._labelled(name) for name in sorted(names, key=lambda name: name != "test")}
            elif stage == "test":
                raise UserError("no test data; give test_file, extra_tests or a folder with a test table")
        if stage in (None, "predict") and self.predict_set is None:
            if "predict" in self.files:
                self.predict_set = self._predict_set()
            elif stage == "predict":
                raise UserError("nothing to predict; give predict_file")
        if stage == "fit" and self.train_set is None:
            raise UserError("no training data; give train_file, dataset or a folder with a train table")
        if stage == "validate" and self.val_set is None:
            raise UserError("no validation data; give val_file, train_file, dataset or a folder with tables")

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad samples to one batch; ``masked_targets`` has the bases shown as [MASK], and -100 elsewhere."""
        symbols = [self.cut(sample["symbols"]) for sample in samples]
        batch: dict[str, Any] = dict(self.tokenizer.pad(symbols, self.max_length, padding=self.padding))
        if "unmasked" in samples[0]:
            whole = [self.cut(sample["unmasked"]) for sample in samples]
            ids = self.tokenizer.pad(whole, self.max_length, padding=self.padding)["input_ids"]
            batch["masked_targets"] = torch.where(batch["input_ids"] == MASK, ids, IGNORED)
        if "label" in samples[0]:
            labels = torch.from_numpy(np.stack([sample["label"] for sample in samples]))
            batch["labels"] = labels.long() if self.target == "class" else labels.float()
        if "name" in samples[0]:
            batch["name"] = [sample["name"] for sample in samples]
            batch["index"] = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return batch

    def evaluation_lengths(self, dataset: SequenceDataset) -> np.ndarray | None:
        """Return the length that each record has in a batch, None where batches may mix lengths."""
        if not self.length_buckets or self.padding == "max_length":
            return None
        lengths = dataset.table.lengths
        return lengths if self.max_length is None else np.minimum(lengths, self._room())

    def longest_input(self) -> tuple[int, str, str]:
        """Tokens of the longest sample that `setup` has made ready, what makes it so long, and how to shorten it."""
        if self.padding == "max_length":
            return self._cut_input()
        added, result = len(self.tokenizer.prefix) + len(self.tokenizer.suffix), (0, "", "")
        for dataset in (self.train_set, self.val_set, *(self.test_set or {}).values(), self.predict_set):
            if dataset is None:
                continue
            row = int(np.argmax(dataset.table.lengths))
            tokens = int(dataset.table.lengths[row]) + added
            if self.max_length is not None and tokens > self.max_length:
                return self._cut_input()
            if tokens > result[0]:
                result = (tokens, *self._longest_record(dataset.table, row))
        return result

    def _cut_input(self) -> tuple[int, str, str]:
        assert self.max_length is not None
        return self.max_length, f"data.max_length={self.max_length}", "lower it by as many"

    def _longest_record(self, table: Records, row: int) -> tuple[str, str]:
        """What makes the longest record so long, and the remedy."""
        where = f"{table.where(row)}: record {str(table.names[row])!r}"
        return where, "remove it, or cut such records with data.max_length and data.long_sequences"

    # Tables

    def _train_table(self) -> Records | None:
        return self._read("train") if "train" in self.files else None

    def _read(self, name: str, *, label_required: bool = True) -> Records:
        table = read_table(
            self.files[name],
            self.tokenizer,
            sequence_column=self.sequence_column,
            label_column=self.label_column if self.target == "class" else None,
            label_required=label_required,
            name_column=self.name_column,
            targets=self._target_reader(self.label_column),
        )
        return self._checked(table)

    def _target_reader(self, column: str) -> TargetReader | None:
        """What reads the targets of this module's kind; None for classes, which are read as text."""
        return target_reader(self.target, column, self.label_columns, self._class_names or self._given_classes)

    def _labelled(self, name: str) -> SequenceDataset:
        table = self._read(name)
        return SequenceDataset(table, self._targets(table), seed=self.seed)

    def _predict_set(self) -> SequenceDataset:
        path = self.files["predict"]
        if is_fasta(path):
            table = self._checked(read_fasta_table(path, self.tokenizer))
        else:
            table = self._read("predict", label_required=False)
        # Where the classes are unknown, labels are carried through as text only (``predict_set.table.labels``).
        known = table.labels is not None and self._class_names is not None
        targets = self._targets(table) if known else table.targets
        return SequenceDataset(table, targets, named=True, seed=self.seed)

    def _set_train_and_val(self, train: Records) -> None:
        targets = self._targets(train)
        rows = np.arange(len(train))
        if self.folds is not None:
            rows = self._limited(rows)
            fold_of = stratified_folds(targets[rows], self.folds, self.seed, self._class_names)
            held = rows[fold_of == self.fold]
            self.val_set = SequenceDataset(train.select(held), targets[held], seed=self.seed)
            rows = rows[fold_of != self.fold]
        elif "val" in self.files:
            self.val_set = self._labelled("val")
        else:
            held_out = chosen_rows(targets, self.val_fraction, self.seed)
            if not held_out.any() or held_out.all():
                raise UserError(
                    f"{train.path}: {len(train)} rows are too few to hold out {self.val_fraction:g} of them for "
                    f"validation; give val_file or another val_fraction"
                )
            self.val_set = SequenceDataset(train.select(rows[held_out]), targets[held_out], seed=self.seed)
            rows = rows[~held_out]
            logger.info(
                "no validation file: %d of the %d rows of %s are held out for validation%s (seed %d)",
                *(held_out.sum(), len(train), train.path),
                *(", class by class" if targets.ndim == 1 else "", self.seed),
            )
        if self.folds is None:
            rows = self._limited(rows)
        self.train_set = SequenceDataset(
            train if len(rows) == len(train) else train.select(rows),
            targets if len(rows) == len(train) else targets[rows],
            rc_augment=0.5 if self.rc_augment else 0.0,
            augmentation=self.augmentation,
            class_names=self._training_classes(),
            seed=self.seed,
        )

    def _training_classes(self) -> list[str] | None:
        """Names of the classes, for an augmentation that changes them.

        Raises:
            UserError: it does, and there are no classes, or not those.
        """
        if self.augmentation is None or not self.augmentation.broken_frames:
            return None
        if self.target != "class":
            raise UserError(f"augmentation.broken_frames needs target='class', not {self.target!r}")
        self.augmentation.check_classes(self.class_names)
        return self.class_names

    def _limited(self, rows: np.ndarray) -> np.ndarray:
        if self.limit_train is None:
            return rows
        return np.random.default_rng(self.seed).permutation(rows)[: self.limit_train]

    # Lengths

    def _room(self) -> int:
        """Bases that fit into ``max_length``."""
        assert self.max_length is not None
        return self.max_length - len(self.tokenizer.prefix) - len(self.tokenizer.suffix)

    def _checked(self, table: Records) -> Records:
        table.check_nucleotides(self.tokenizer)
        if self.max_length is not None and self.long_sequences == "error":
            long = np.flatnonzero(table.lengths > self._room())
            if len(long):
                raise UserError(
                    f"{table.where(long[0])}: the sequence has {table.lengths[long[0]]} bases but "
                    f"max_length={self.max_length} has room for {self._room()}; raise it, or set long_sequences to "
                    f"'first' or 'center'"
                )
        return table

    def cut(self, symbols: np.ndarray) -> np.ndarray:
        """The bases of a sequence that fit into ``max_length``, as ``long_sequences`` says."""
        if self.max_length is None or len(symbols) <= self._room():
            return symbols
        begin = (len(symbols) - self._room()) // 2 if self.long_sequences == "center" else 0
        return symbols[begin : begin + self._room()]

    # Classes

    def _set_classes(self, train: Records | None, *, required: bool) -> None:
        if self._class_names is not None:
            return
        names = self._given_classes
        if names is None and train is not None and train.target_names is not None:
            names = list(train.target_names)
        if names is None:
            if train is None or train.labels is None:
                if not required:
                    return
                raise UserError("the classes are unknown without training data; give train_file or class_names")
            names = sorted_labels([str(label) for label in np.unique(train.labels)])
        if len(names) < 2 and self.target == "class":
            only = f"{self.files['train']}: " if "train" in self.files else ""
            raise UserError(f"{only}only one class, {names[0]!r}; classification needs at least two")
        self._class_of = {name: index for index, name in enumerate(names)}
        if self._given_classes is not None and not any(is_integer(name) for name in names):
            self._class_of |= {str(index): index for index in range(len(names))}
        self._class_names = list(names)

    def _targets(self, table: Records) -> np.ndarray:
        """Class index (int64) of every row, or its targets (rows, targets)."""
        if table.targets is not None:
            return table.targets
        assert table.labels is not None
        values, inverse = np.unique(table.labels, return_inverse=True)
        for value in values:
            if str(value) not in self._class_of:
                row = int(np.flatnonzero(table.labels == value)[0])
                source = "given class names" if self._given_classes is not None else "labels of the training file"
                raise UserError(
                    f"{table.where(row)}: label {str(value)!r} is not among the {source}: {', '.join(self.class_names)}"
                )
        return np.array([self._class_of[str(value)] for value in values], dtype=np.int64)[inverse]


def _folder_files(folder: Path) -> dict[str, str]:
    """Name (train, val, test, test_…) to table in a folder.

    Raises:
        UserError: no such folder, two tables for one name, or no table.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check the path")
    files: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        match = _TABLE_NAME.fullmatch(file.name)
        if match is None:
            continue
        name = match["name"]
        if name in files:
            raise UserError(f"{folder}: both {Path(files[name]).name} and {file.name} could be the {name} table")
        files[name] = str(file)
    if not files:
        raise UserError(f"{folder}: has no table named train, val or test with .tsv or .csv (.gz may follow)")
    return files
