"""What a probe is fitted on: labelled tables embedded by a model, or embeddings from a file joined with labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from ..core.errors import UserError
from .data.files import open_text
from .data.items import ArraySequence
from .data.tables import SequenceTable, column_place, delimiter_of, read_table, table_rows
from .embedding import Embedder, Pooling
from .embedding_files import read_pooled
from .inference import DNAModel, Strand
from .probing import ProbeData, Task
from .reading import plan_reading


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """What the columns of a table of labelled sequences are, by name.

    Attributes:
        sequence, label: as for `read_table`.
        group: what must stay together in cross-validation.
        category, distance: ``categories`` and ``distances`` of `ProbeData`.
        task: whether labels are classes or numbers.
    """

    sequence: str = "sequence"
    label: str = "label"
    group: str | None = None
    category: str | None = None
    distance: str | None = None
    task: Task = "classification"


def read_facts(table: SequenceTable, rows: np.ndarray, columns: TableColumns) -> ProbeData:
    """What a table says of some of its rows beside their sequences; the features ``x`` are (rows, 0) still.

    Raises:
        UserError: with file and line, a column that is missing, empty or no number where it must be one.
    """
    assert table.labels is not None
    path = table.path
    groups = None if columns.group is None else _read_column(path, columns.group, "--groups")[rows]
    categories = None if columns.category is None else _read_column(path, columns.category, "--category-column")[rows]
    distances = None if columns.distance is None else _read_distances(path, columns.distance, table.lines)[rows]
    y = _labels([str(label) for label in table.labels[rows]], columns.task, [table.where(int(row)) for row in rows])
    return ProbeData(path, np.empty((len(rows), 0)), y, groups, categories=categories, distances=distances)


def drawn(rows: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """The first ``limit`` of rows in an order shuffled by ``seed``, sorted; all of them where there are no more."""
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:limit])


def embed_table(
    model: DNAModel,
    path: str | os.PathLike[str],
    columns: TableColumns = TableColumns(),
    *,
    pooling: Pooling = "mean",
    strand: Strand = "forward",
    batch_size: int = 16,
    limit: int | None = None,
    seed: int = 0,
) -> ProbeData:
    """Embed a table of labelled sequences.

    Args:
        limit: use only so many rows; see `drawn`.
        path: as for `read_table`; upper and lower case are read alike.

    Raises:
        UserError: what is wrong with the table, with file and line; a label that is no number, in regression; or
            sequences of nothing but N, or longer than the model takes.
    """
    from tqdm import tqdm

    tokenizer = replace(model.tokenizer, case="upper")
    table = read_table(path, tokenizer, sequence_column=columns.sequence, label_column=columns.label)
    table.check_nucleotides(tokenizer)
    rows = drawn(np.arange(len(table)), limit, seed)
    facts = read_facts(table, rows, columns)
    long = int(rows[np.argmax(table.lengths[rows])])
    try:
        reading = plan_reading(model, int(table.lengths[long]), strand=strand, batch_size=batch_size)
    except UserError as error:
        raise UserError(f"{table.where(long)}: {error}") from None
    with tqdm(total=len(rows), unit="sequence", disable=None, desc="embed") as bar:
        vectors = []
        for vector in Embedder(model, reading).pooled((ArraySequence(table[int(row)]) for row in rows), pooling):
            vectors.append(vector)
            bar.update(1)
    return replace(facts, x=np.stack(vectors))


def join_embeddings(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    task: Task = "classification",
    label_column: str = "label",
    group_column: str | None = None,
) -> ProbeData:
    """Join the pooled embeddings that ``embed`` wrote with the labels of a table, by name.

    Args:
        labels: TSV or CSV with a column ``name`` and the label column; rows of other names are passed over.
        group_column: a column of the table, or of the embeddings (``contig``).

    Raises:
        UserError: names that occur twice or have no label, and what is wrong with the files.
    """
    columns, x, metadata = read_pooled(path)
    names = [str(name) for name in columns["name"]]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UserError(f"{path}: {twice!r} names two embeddings, so labels cannot be joined; give distinct names")
    from_table = group_column is not None and group_column not in columns
    wanted = [label_column, group_column] if from_table and group_column is not None else [label_column]
    found = _read_columns(labels, wanted)
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise UserError(f"{labels}: has no row for {missing!r} of {path}; add it, or embed the labelled items alone")
    y = _labels([found[name][0] for name in names], task, [f"{labels}: {name!r}" for name in names])
    groups = None
    if group_column is not None:
        groups = np.array([found[name][1] for name in names]) if from_table else columns[group_column].astype(str)
    return ProbeData(str(path), x, y, groups, metadata)


def add_categories(train: ProbeData, test: ProbeData | None, *, one_hot: bool) -> tuple[ProbeData, ProbeData | None]:
    """Append the categories to the features; without categories nothing changes.

    Args:
        one_hot: append one column (0 or 1) for each value; otherwise a single column with the number of the value
            among the distinct ones of both tables, sorted, from 0: as Schiff et al. 2024 (arXiv:2403.03234) do.
    """
    if train.categories is None:
        return train, test
    tables = [train] if test is None else [train, test]
    known = np.unique(np.concatenate([table.categories for table in tables if table.categories is not None]))
    result: list[ProbeData] = []
    for table in tables:
        assert table.categories is not None
        codes = np.searchsorted(known, table.categories)
        columns = np.eye(len(known))[codes] if one_hot else codes[:, None]
        result.append(replace(table, x=np.concatenate([table.x, columns.astype(np.float32)], axis=1)))
    return result[0], result[1] if len(result) > 1 else None


def _read_column(path: str | os.PathLike[str], column: str, option: str) -> np.ndarray:
    """The values (rows,) str of a column of a table that `read_table` takes.

    Args:
        option: what names the column, for errors.

    Raises:
        UserError: with file and line: no such column, or a row where it is empty.
    """
    values: list[str] = []
    with table_rows(path) as rows:
        place = column_place(next(rows, []), column, path, option)
        line = rows.line_num + 1
        for row in rows:
            where, line = f"{path}:{line}", rows.line_num + 1
            if not row:
                continue
            if not row[place]:
                raise UserError(f"{where}: column {column!r} is empty; fill it in or remove the row")
            values.append(row[place])
    return np.array(values)


def _read_distances(path: str | os.PathLike[str], column: str, lines: Sequence[int] | np.ndarray) -> np.ndarray:
    """The values (rows,) float64 of a column of distances.

    Args:
        lines: (rows,) of the file on which the rows begin.

    Raises:
        UserError: with file and line, a value that is no number, or is not finite or below 0.
    """
    texts = _read_column(path, column, "--distance-column").tolist()
    values = _numbers(texts)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise UserError(
            f"{path}:{lines[wrong[0]]}: {column} {texts[wrong[0]]!r} is no number of bases (0 or more); correct it or "
            f"remove the row"
        )
    return values


def _labels(texts: list[str], task: Task, where: list[str]) -> np.ndarray:
    """Class names (rows,) str, or in regression numbers (rows,) float64.

    Args:
        where: the place of each, for errors.

    Raises:
        UserError: in regression, a label that is no finite number.
    """
    if task == "classification":
        return np.array(texts)
    values = _numbers(texts)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise UserError(
            f"{where[wrong[0]]}: label {texts[wrong[0]]!r} is no number, or not finite; correct it, remove the row, or "
            f"leave out --task"
        )
    return values


def _numbers(texts: list[str]) -> np.ndarray:
    """float64, NaN for what is no number."""
    values = np.full(len(texts), np.nan)
    for index, text in enumerate(texts):
        with suppress(ValueError):
            values[index] = float(text)
    return values


def _read_columns(path: str | os.PathLike[str], wanted: list[str]) -> dict[str, list[str]]:
    """Name to the values of some columns of a table with a header."""
    found: dict[str, list[str]] = {}
    with open_text(path) as stream:
        rows = csv.DictReader(stream, delimiter=delimiter_of(path))
        header = list(rows.fieldnames or [])
        for name in ("name", *wanted):
            if header.count(name) != 1:
                raise UserError(
                    f"{path}:1: {header.count(name)} columns named {name!r}; there are: {', '.join(header)}"
                )
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: another number of columns than the header, {len(header)}; correct the row")
            if row["name"] in found:
                raise UserError(f"{where}: {row['name']!r} has a row already; remove one")
            values = [row[name] for name in wanted]
            if "" in values:
                raise UserError(f"{where}: column {wanted[values.index('')]!r} is empty; fill it in or remove the row")
            found[row["name"]] = values
    return found


__all__ = ["TableColumns", "add_categories", "drawn", "embed_table", "join_embeddings", "read_facts"]
