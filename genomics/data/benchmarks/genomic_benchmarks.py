"""Genomic Benchmarks (Grešová et al. 2023): a folder for each class, or tables of intervals in a reference."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from ....core.errors import UserError, nearest
from ..classification import SequenceTableDataModule
from ..interval_table import IntervalCollector, IntervalTable, open_reference
from ..tables import Records, SequenceTable, make_table, table_rows
from .folders import existing_folder, subfolders

_COLUMNS = ("id", "region", "start", "end", "strand")
_CLASS_TABLE = re.compile(r"(?P<name>[^.].*)\.csv(\.gz)?")


class GenomicBenchmarksDataModule(SequenceTableDataModule):
    """One data set of Genomic Benchmarks in either of its forms.

    Sequences: ``train/<class>/*.txt`` and ``test/<class>/*.txt``, one sequence in a file. Intervals, as shipped:
    ``train/<class>.csv.gz`` and ``test/<class>.csv.gz`` with the columns id, region, start, end (0-based, half-open)
    and strand; the sequence is that of the reference, reverse-complemented on strand -.

    The classes are the sorted names, so 0 is the same class on every machine. There is no validation data:
    ``val_fraction`` of the training records, class by class, is held out by ``seed``; the test records are for testing.

    Args:
        folder: the folder of the data set, or of several.
        task: the data set in it, as ``human_enhancers_cohn``; None if ``folder`` is that of the data set.
        reference: FASTA of the regions, for the form with intervals; or class to FASTA where classes come from several
            (species; transcripts, whose ids are the regions, and a genome).
        aliases: table of other names of the reference's contigs, as UCSC's chromAlias.txt.
        options: those of `SequenceTableDataModule`.

    Raises:
        UserError: no such folder, another form, or other classes in train than in test; in ``setup``, anything wrong
            with the files.
    """

    def __init__(
        self,
        folder: str,
        task: str | None = None,
        reference: str | dict[str, str] | None = None,
        aliases: str | None = None,
        **options: Any,
    ) -> None:
        place = existing_folder(folder, task)
        self.reference, self.aliases = reference, aliases
        found = {split: _class_paths(place / split) for split in ("train", "test")}
        self._check_classes(place, found["train"], found["test"])
        self._paths = found
        self._opened: dict[str, Any] = {}
        super().__init__(train_file=str(place / "train"), test_file=str(place / "test"), **options)
        self._given_classes = self._given_classes or list(found["train"])
        if self.target != "class":
            raise UserError("Genomic Benchmarks are classifications; leave target at 'class'")

    def _check_classes(self, place: Path, train: dict[str, Path], test: dict[str, Path]) -> None:
        for one, other, split in ((train, test, "test"), (test, train, "train")):
            missing = sorted(set(one) - set(other))
            if missing:
                raise UserError(
                    f"{place / split}: class {missing[0]!r} is missing ({nearest(missing[0], other)}); train and "
                    f"test must have the same classes"
                )
        if isinstance(self.reference, dict):
            missing = sorted(set(train) - set(self.reference))
            if missing:
                raise UserError(f"reference: names no FASTA for class {missing[0]!r}; give one for each class")
        elif self.reference is None and not next(iter(train.values())).is_dir():
            raise UserError(f"{place}: lists intervals, not sequences; give reference, the FASTA that they are of")

    def _read(self, name: str, *, label_required: bool = True) -> Records:
        if name not in ("train", "test"):
            return super()._read(name, label_required=label_required)
        paths = self._paths[name]
        if next(iter(paths.values())).is_dir():
            return self._checked(self._read_folders(self.files[name], paths))
        return self._checked(self._read_intervals(self.files[name], paths))

    def _read_folders(self, path: str, folders: dict[str, Path]) -> _FolderTable:
        parts: list[np.ndarray] = []
        labels: list[str] = []
        names: list[str] = []
        for label, folder in folders.items():
            files = sorted((file for file in folder.iterdir() if file.suffix == ".txt"), key=_number_or_name)
            if not files:
                raise UserError(f"{folder}: has no .txt file; a class is a folder with one sequence in each file")
            for file in files:
                sequence = file.read_bytes().strip()
                if not sequence:
                    raise UserError(f"{file}: the file is empty; remove it, or write a sequence to it")
                parts.append(self.tokenizer.encode_symbols(sequence, where=str(file)))
                labels.append(label)
                names.append(file.stem)
        table = make_table(path, parts, labels, names, [1] * len(parts))
        return _FolderTable(**{field.name: getattr(table, field.name) for field in dataclasses.fields(table)})

    def _read_intervals(self, path: str, tables: dict[str, Path]) -> IntervalTable:
        collector = IntervalCollector(path, self.tokenizer)
        labels: list[str] = []
        for label, file in tables.items():
            chosen = self.reference[label] if isinstance(self.reference, dict) else str(self.reference)
            if chosen not in self._opened:
                self._opened[chosen] = open_reference(chosen, self.aliases)
            reader, contigs = self._opened[chosen]
            with table_rows(file) as rows:
                header = [column.strip() for column in next(rows, [])]
                missing = [column for column in _COLUMNS if column not in header]
                if missing:
                    raise UserError(
                        f"{file}:1: no column {missing[0]!r}; a table of intervals has {', '.join(_COLUMNS)}"
                    )
                places = [header.index(column) for column in _COLUMNS]
                for row in rows:
                    if not row:
                        continue
                    if len(row) != len(header):
                        raise UserError(f"{file}:{rows.line_num}: {len(row)} columns, the header has {len(header)}")
                    identity, *fields, strand = (row[place].strip() for place in places)
                    collector.add(reader, contigs, fields, strand, identity, str(file), rows.line_num)
                    labels.append(label)
            if label not in labels[-1:]:
                raise UserError(f"{file}: has a header but no row; is it the right file?")
        return dataclasses.replace(collector.table(), labels=np.array(labels, dtype=object))


class _FolderTable(SequenceTable):
    """A table whose records are files."""

    def where(self, index: int) -> str:
        assert self.labels is not None
        return str(Path(self.path, str(self.labels[index]), f"{self.names[index]}.txt"))


def _class_paths(folder: Path) -> dict[str, Path]:
    """Class to its folder of sequences or its table of intervals, sorted by class.

    Raises:
        UserError: no such folder, both forms in one, or neither.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; a data set has the folders train and test, and classes in them")
    folders = {name: folder / name for name in subfolders(folder)}
    matches = [(file, _CLASS_TABLE.fullmatch(file.name)) for file in sorted(folder.iterdir()) if file.is_file()]
    tables = {match["name"]: file for file, match in matches if match}
    if folders and tables:
        both = min(tables.values())
        raise UserError(f"{folder}: has folders of sequences and also {both.name}; keep one of the two forms")
    if not folders and not tables:
        raise UserError(f"{folder}: has no class; expected <class>/*.txt, or <class>.csv.gz with intervals")
    return dict(sorted((folders or tables).items()))


def _number_or_name(file: Path) -> tuple[int, str]:
    """Sorts 2.txt before 10.txt."""
    return (int(file.stem) if file.stem.isdecimal() else -1, file.stem)
