"""What a probe is fitted on: labelled tables embedded by a model, or embeddings from a file joined with labels."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections import Counter

import numpy as np

from ..core.errors import UserError
from .data.files import open_text
from .data.items import ArraySequence
from .data.tables import delimiter_of, read_table
from .embedding import Embedder, Pooling
from .embedding_files import read_pooled
from .inference import DNAModel, Strand
from .probing import ProbeData, Task
from .reading import plan_reading


def embed_table(
    model: DNAModel,
    path: str | os.PathLike[str],
    *,
    task: Task = "classification",
    pooling: Pooling = "mean",
    strand: Strand = "forward",
    batch_size: int = 16,
    sequence_column: str = "sequence",
    label_column: str = "label",
    group_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ProbeData:
    """Embed a table of labelled sequences.

    Args:
        limit: use only so many rows, the first of an order shuffled by ``seed``.
        path, sequence_column, label_column: as for `read_table`; upper and lower case are read alike.
        group_column: what must stay together in cross-validation.

    Raises:
        UserError: what is wrong with the table, with file and line; a label that is no number, in regression; or
            sequences longer than the model takes.
    """
    from tqdm import tqdm

    tokenizer = dataclasses.replace(model.tokenizer, case="upper")
    table = read_table(path, tokenizer, sequence_column=sequence_column, label_column=label_column)
    groups = None
    if group_column is not None:  # read as if it were the label: the same checks apply
        groups = read_table(path, tokenizer, sequence_column=sequence_column, label_column=group_column).labels
    rows = np.arange(len(table))
    if limit is not None and limit < len(rows):
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:limit])
    assert table.labels is not None
    y = _labels([str(label) for label in table.labels[rows]], task, [table.where(int(row)) for row in rows])
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
    return ProbeData(str(path), np.stack(vectors), y, None if groups is None else groups[rows].astype(str))


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


def _labels(texts: list[str], task: Task, where: list[str]) -> np.ndarray:
    if task == "classification":
        return np.array(texts)
    values = np.empty(len(texts))
    for index, text in enumerate(texts):
        try:
            values[index] = float(text)
        except ValueError as error:
            raise UserError(f"{where[index]}: label {text!r} is no number; correct it, or leave out --task") from error
        if not np.isfinite(values[index]):
            raise UserError(f"{where[index]}: label {text!r} is not finite; correct it or remove the row")
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


__all__ = ["embed_table", "join_embeddings"]
