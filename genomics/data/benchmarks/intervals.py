"""Intervals of a genome with a class, labels or numbers to predict: BED and FASTA."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ....core.errors import UserError
from ..classification import SequenceTableDataModule
from ..files import open_text
from ..interval_table import IntervalCollector, IntervalTable, open_reference
from ..tables import Records
from .targets_table import TargetsTable

logger = logging.getLogger(__name__)

_NAMES = {4: "name", 5: "score"}


class IntervalDataModule(SequenceTableDataModule):
    """Sequences of BED intervals, fetched from a FASTA when they are needed, so that they may be long.

    An interval on strand - gives the reverse complement. What is to be predicted is in columns of the BED file or in a
    table joined to it by the intervals' names. The splits are files (``train_bed``, ``val_bed``, ``test_bed``) or, of
    one file ``bed``, chromosomes. Without validation data, ``val_fraction`` of the training intervals is held out.
    Validation and test intervals that overlap training intervals are counted in the log: what is measured on them says
    little of unseen sequence.

    Args:
        fasta: the genome: FASTA (plain, bgzip or gzip), or ``embedded:…``.
        bed: intervals to be split by chromosome.
        train_bed: intervals to train on.
        val_bed: intervals to validate on.
        test_bed: intervals to test on.
        predict_bed: intervals to predict; their targets are not read.
        val_chromosomes: with ``bed``, contigs for validation.
        test_chromosomes: with ``bed``, contigs for the test.
        width: take this many bases around the middle of each interval, N beyond the ends of a contig (counted in the
            log); the intervals as they are where None.
        stranded: whether column 6 counts; the forward strand otherwise.
        bed_column: column (from 1) with the class, the labels or the number; where None the name (4), for numbers the
            score (5).
        bed_columns: several columns in place of one: 0 or 1 for each of the labels, or numbers.
        targets_file: TSV or CSV with a column ``name``, to be found in column 4 of the BED, and ``label_column`` or
            ``label_columns``; then no target column of the BED is read.
        aliases: table of other names of the FASTA's contigs, as UCSC's chromAlias.txt.
        options: those of `SequenceTableDataModule`; ``class_names`` names the targets.

    Raises:
        UserError: arguments that contradict each other; in ``setup``, anything wrong with the files.
    """

    def __init__(
        self,
        fasta: str,
        bed: str | None = None,
        train_bed: str | None = None,
        val_bed: str | None = None,
        test_bed: str | None = None,
        predict_bed: str | None = None,
        val_chromosomes: list[str] | None = None,
        test_chromosomes: list[str] | None = None,
        width: int | None = None,
        stranded: bool = True,
        bed_column: int | None = None,
        bed_columns: list[int] | None = None,
        targets_file: str | None = None,
        aliases: str | None = None,
        label_column: str = "label",
        label_columns: list[str] | None = None,
        **options: Any,
    ) -> None:
        self.fasta, self.aliases, self.width, self.stranded = fasta, aliases, width, stranded
        self.targets_file = targets_file
        self._held = {"val": val_chromosomes or [], "test": test_chromosomes or []}
        self._check_intervals(bed, [train_bed, val_bed, test_bed], bed_column, bed_columns)
        self.places = bed_columns or [bed_column or (5 if options.get("target") == "values" else 4)]
        if targets_file is None:
            named = [_NAMES.get(place, f"column_{place}") for place in self.places]
            label_column, label_columns = named[0], named if bed_columns else None
        self._by_chromosome = bed is not None
        if bed is not None:
            train_bed, val_bed, test_bed = bed, bed if val_chromosomes else None, bed if test_chromosomes else None
        super().__init__(
            train_file=train_bed,
            val_file=val_bed,
            test_file=test_bed,
            predict_file=predict_bed,
            label_column=label_column,
            label_columns=label_columns,
            **options,
        )
        self._reference: Any = None
        self._whole: IntervalTable | None = None
        self._tables: dict[str, IntervalTable] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Loader processes need only ``collate``; see the base class.
        return super().__getstate__() | {"_whole": None, "_tables": {}}

    def setup(self, stage: str | None = None) -> None:
        """Read the tables that ``stage`` needs, and tell which intervals are not as new as they should be."""
        super().setup(stage)
        if not self._by_chromosome and stage != "predict":
            self._tell_overlaps()
        self._tables = {}

    def _tell_overlaps(self) -> None:
        found: dict[str, np.ndarray] = {}
        if self.train_set is not None and self.val_set is not None:
            found["validation"] = self.val_set.table.overlaps(self.train_set.table)
        if all(name in self.files and Path(self.files[name]).is_file() for name in ("train", "test")):
            train, test = (
                self._tables.get(name) or self._intervals(self.files[name], with_targets=False)
                for name in ("train", "test")
            )
            found["test"] = test.overlaps(train)
        for name, overlaps in found.items():
            if overlaps.any():
                logger.warning(
                    "%d of %d %s intervals overlap training intervals, so that what is measured on them says little of "
                    "unseen sequence; split by chromosome (bed with val_chromosomes and test_chromosomes)",
                    *(np.count_nonzero(overlaps), len(overlaps), name),
                )

    def _check_intervals(
        self, bed: str | None, files: list[str | None], column: int | None, columns: list[int] | None
    ) -> None:
        if bed is not None and any(files):
            raise UserError(
                "bed (split by chromosome) and train_bed, val_bed, test_bed exclude each other; give one kind"
            )
        if bed is None and any(self._held.values()):
            raise UserError("val_chromosomes and test_chromosomes split the file bed; give bed, or remove them")
        if self.width is not None and self.width < 1:
            raise UserError(f"width={self.width} must be at least 1")
        if column is not None and columns is not None:
            raise UserError("bed_column and bed_columns exclude each other; give one")
        if min([*(columns or []), column or 4]) < 4:
            raise UserError("bed_column counts from 1, and the first three columns are the interval; give 4 or more")
        if self.targets_file is not None and (column or columns):
            raise UserError("targets_file holds the targets, so bed_column and bed_columns mean nothing; remove them")

    def _longest_record(self, table: Records, row: int) -> tuple[str, str]:
        if self.width is None:
            return super()._longest_record(table, row)
        return f"data.width={self.width}", "lower it by as many"

    def _read(self, name: str, *, label_required: bool = True) -> Records:
        if name not in ("train", "val", "test", "predict"):
            return super()._read(name, label_required=label_required)
        if not self._by_chromosome or name == "predict":
            table = self._intervals(self.files[name], with_targets=name != "predict")
            self._tables[name] = table
            return self._checked(table)
        if self._whole is None:
            self._whole = self._intervals(self.files["train"], with_targets=True)
        return self._checked(self._whole.select(np.flatnonzero(self._split_of(self._whole) == name)))

    def _split_of(self, table: IntervalTable) -> np.ndarray:
        """Name of the split of each interval."""
        _, contigs = self._open()
        split: dict[str, str] = {}
        for name, held in self._held.items():
            for given in held:
                contig = contigs.require(given, f"{name}_chromosomes")
                if split.setdefault(contig, name) != name:
                    raise UserError(
                        f"contig {contig!r} is in val_chromosomes and in test_chromosomes; remove it from one"
                    )
        result = np.array([split.get(contig, "train") for contig in table.contigs])[table.contig]
        for name in ("train", *(name for name, held in self._held.items() if held)):
            if not (result == name).any():
                raise UserError(f"{table.path}: has no interval for the {name} split; change the chromosomes")
        return result

    def _open(self) -> Any:
        if self._reference is None:
            self._reference = open_reference(self.fasta, self.aliases)
        return self._reference

    def _intervals(self, path: str, *, with_targets: bool) -> IntervalTable:
        collector = IntervalCollector(path, self.tokenizer)
        reader, contigs = self._open()
        targets = self._target_reader(self.label_column) if with_targets else None
        in_bed = with_targets and self.targets_file is None
        labels: list[str] = []
        with open_text(path) as stream:
            for number, line in enumerate(stream, start=1):
                text = line.rstrip("\r\n")
                if not text.strip() or text.startswith("#") or text.split(maxsplit=1)[0] in ("track", "browser"):
                    continue
                fields, where = text.split("\t"), f"{path}:{number}"
                needed = max(3, *(self.places if in_bed else [3]), 4 if with_targets and not in_bed else 3)
                if len(fields) < needed:
                    raise UserError(
                        f"{where}: {len(fields)} tab-separated column(s), column {needed} is needed; add it, or set "
                        f"bed_column or targets_file"
                    )
                strand = fields[5] if self.stranded and len(fields) > 5 else "+"
                name = (
                    fields[3]
                    if len(fields) > 3 and fields[3] not in ("", ".")
                    else f"{fields[0]}:{fields[1]}-{fields[2]}"
                )
                collector.add(reader, contigs, fields[:3], strand, name, path, number)
                if in_bed and targets is not None:
                    targets.add([fields[place - 1] for place in self.places], where)
                elif in_bed:
                    if not fields[self.places[0] - 1]:
                        raise UserError(f"{where}: column {self.places[0]}, the class, is empty; fill it in")
                    labels.append(fields[self.places[0] - 1])
        table = collector.table()
        if in_bed and targets is None:
            table = dataclasses.replace(table, labels=np.array(labels, dtype=object))
        elif in_bed and targets is not None:
            table = dataclasses.replace(table, targets=targets.finish(path), target_names=targets.names)
        elif with_targets:
            joined = TargetsTable(str(self.targets_file), targets, self.label_column).columns_for(table)
            table = dataclasses.replace(table, **joined)  # type: ignore[arg-type]
        return table if self.width is None else table.widened(self.width)
