"""Where the rows of ``longscan genomics probe`` come from: tables that a model embeds, or embeddings from a file."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError

if TYPE_CHECKING:
    from ..inference import DNAModel
    from ..probe_data import TableColumns
    from ..probing import ProbeData


def probe_data(arguments: argparse.Namespace) -> tuple[ProbeData, ProbeData | None, dict[str, Any]]:
    """Return training rows, test rows where there are some, and what identifies them: the settings by name.

    Args:
        arguments: those of ``longscan genomics probe``, checked.

    Raises:
        UserError: an unknown data set, and what is wrong with the model, the tables or the embeddings.
    """
    from ..inference import load_model
    from ..probe_data import TableColumns, add_categories, embed_table, join_embeddings
    from ..probing import IDENTITY

    if arguments.embeddings is not None:
        options = {"task": arguments.task, "label_column": arguments.label_column, "group_column": arguments.groups}
        train = join_embeddings(arguments.embeddings, arguments.labels, **options)
        test = None
        if arguments.test_embeddings is not None:
            test = join_embeddings(arguments.test_embeddings, arguments.labels, **options)
        known = {name: train.metadata[name] for name in IDENTITY if name in train.metadata}
        return train, test, {**known, "embeddings": arguments.embeddings}
    table, test_table = arguments.table, arguments.test
    if arguments.dataset is not None:
        table, test_table = _packaged(arguments.dataset)
    model = load_model(arguments)
    about = {
        "model": model.name,
        "revision": model.revision,
        "pooling": arguments.pooling,
        "strand": arguments.strand,
        "table": arguments.dataset or str(table),
    }
    columns = TableColumns(
        sequence=arguments.sequence_column,
        label=arguments.label_column,
        category=arguments.category_column,
        distance=arguments.distance_column,
        task=arguments.task,
    )
    # Groups are for cross-validation: a test table needs none.
    tables = [
        (table, replace(columns, group=arguments.groups), {"limit": arguments.limit_train, "seed": arguments.seed})
    ]
    if test_table is not None:
        tables.append((test_table, columns, {}))
    if arguments.alt_column is not None:
        data, variants = _pairs(arguments, model, tables)
        about = {name: value for name, value in about.items() if name != "pooling"} | variants
    else:
        how = {"pooling": arguments.pooling, "strand": arguments.strand, "batch_size": arguments.batch_size}
        data = [embed_table(model, path, names, **how, **limit) for path, names, limit in tables]
    given = {"category_column": columns.category, "distance_column": columns.distance}
    about |= {name: value for name, value in given.items() if value is not None}
    one_hot = arguments.protocol == "nested"
    train, test = add_categories(data[0], data[1] if len(data) > 1 else None, one_hot=one_hot)
    return train, test, about


def _packaged(name: str) -> tuple[Path, Path]:
    """Training and test table of a packaged task."""
    from ..data.files import known_names
    from ..datasets import DATASETS, dataset_path

    tasks = [task for task in DATASETS if "." not in task]
    if name not in tasks:
        raise UserError(f"--dataset {name}: is unknown ({known_names(name, tasks)})")
    folder = dataset_path(name)
    return folder / "train.tsv.gz", folder / "test.tsv.gz"


def _pairs(
    arguments: argparse.Namespace, model: DNAModel, tables: list[tuple[Any, TableColumns, dict[str, Any]]]
) -> tuple[list[ProbeData], dict[str, Any]]:
    """The tables embedded, and how. All are read before the first is embedded: a mistake in the second should not
    cost an hour."""
    from ..variant_pairs import AROUND, MAX_N_SHARE, embed_pairs, read_pairs

    around = AROUND if arguments.around is None else arguments.around
    read = [read_pairs(model, path, arguments.alt_column, columns, **limit) for path, columns, limit in tables]
    for pairs in read:
        print(f"{pairs.facts.source}: {pairs.left_out} row(s) left out, whose reference is N in {MAX_N_SHARE:.1%} or "
              f"more")  # fmt: skip
    how = {"around": around, "strand": arguments.strand, "batch_size": arguments.batch_size}
    about = {"alt_column": arguments.alt_column, "around": around, "left_out": [pairs.left_out for pairs in read]}
    return [embed_pairs(model, pairs, **how) for pairs in read], about


__all__ = ["probe_data"]
