"""``longscan genomics probe``: what frozen embeddings hold, measured by a simple model on top of them."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.cli import Parser
from ...core.errors import UserError
from .options import add_model_arguments, add_seed_argument, check_output

if TYPE_CHECKING:
    from ..probing import ProbeData, ProbeResult, ProbeSettings

_DESCRIPTION = """\
Fit a simple model on frozen embeddings and measure it on rows that it has not seen.

Nested cross-validation: of each fold, scaling, the choice of the strength (C, or alpha of ridge) and the fit see the
training rows alone. With a test table (--test, or that of --dataset) the strength is chosen by cross-validation inside
the training table, the model fitted on all of it, and the test table used once.
"""
#: How a table is embedded unless said; options that have no use with --embeddings, which were computed already.
_EMBEDDING_DEFAULTS = {"sequence_column": "sequence", "pooling": "mean", "strand": "forward"}
_VEP_OPTIONS = ("estimator", "values", "groups", "folds", "inner_folds", "seeds")


def probe(argv: list[str]) -> int:
    """``longscan genomics probe``."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    for name, default in _EMBEDDING_DEFAULTS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    if arguments.output is not None:
        if not arguments.output.lower().endswith((".tsv", ".json")):
            raise UserError(f"--output {arguments.output}: the ending does not say the format; name it .tsv or .json")
        check_output(arguments.output)
    if arguments.protocol == "caduceus-vep":
        return _caduceus(arguments)
    settings = _settings(arguments)  # before any embedding: mistakes should not cost an hour
    seeds = range(arguments.seed, arguments.seed + (arguments.seeds or 1))
    train, test, about = _data(arguments)
    from ..probing import cross_validate, evaluate_once

    if test is None:
        from tqdm import tqdm

        total = settings.folds * len(seeds)
        results = list(tqdm(cross_validate(train, settings, seeds), total=total, disable=None, desc="folds"))
    else:
        results = [evaluate_once(train, test, settings, seed) for seed in seeds]
    _print(results, train, test, settings)
    if arguments.output is not None:
        rows = [
            {"seed": r.seed, "fold": r.fold, "value": r.value, "train": r.train, "test": r.test, **r.metrics}
            for r in results
        ]
        _save(arguments.output, rows, {**about, "protocol": "nested", "estimator": settings.estimator})
    return 0


def _parser() -> Parser:
    from ..probing import ESTIMATORS

    parser = Parser(prog="longscan genomics probe", description=_DESCRIPTION)
    add_model_arguments(parser, required=False)
    data = parser.add_argument_group("data (one of --table, --dataset, --embeddings)")
    data.add_argument("--table", help="TSV or CSV with columns sequence and label, embedded by --model")
    data.add_argument("--dataset", help="packaged task: splice_sites_200 or coding_vs_intergenic_200")
    data.add_argument("--embeddings", help="pooled embeddings that `embed` wrote, joined with --labels by name")
    data.add_argument("--labels", help="with --embeddings: TSV or CSV with columns name and label")
    data.add_argument("--test", help="with --table: table to measure on, once")
    data.add_argument("--test-embeddings", help="with --embeddings: likewise; --labels has their rows too")
    data.add_argument("--sequence-column", help="[sequence]")
    data.add_argument("--label-column", default="label", help="[%(default)s]")
    data.add_argument("--groups", metavar="COLUMN", help="rows with one value here (a chromosome) stay in one fold")
    data.add_argument("--limit-train", type=int, metavar="N", help="use N random training rows")
    data.add_argument("--pooling", choices=("mean", "max", "last"), help="[mean]")
    data.add_argument("--strand", choices=("forward", "reverse", "both"), help="[forward]")
    how = parser.add_argument_group("protocol")
    how.add_argument("--protocol", choices=("nested", "caduceus-vep"), default="nested", help="[%(default)s]")
    how.add_argument("--task", choices=tuple(ESTIMATORS), default="classification", help="[%(default)s]")
    how.add_argument("--estimator", help="logistic, svm (RBF), linear-svm, ridge [logistic; regression: ridge]")
    how.add_argument("--values", help="strengths to choose from: C, or alpha of ridge, as 0.1,1,10")
    how.add_argument("--folds", type=int, help="of the outer cross-validation [5]")
    how.add_argument("--inner-folds", type=int, help="of the inner one, which chooses the strength [3]")
    how.add_argument("--seeds", type=int, help="repetitions with other folds [1]")
    add_seed_argument(how, "the first seed")
    parser.add_argument("--output", help="write the figures of every fold: .tsv or .json")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    given = [name for name in ("table", "dataset", "embeddings") if getattr(arguments, name) is not None]
    if len(given) != 1:
        raise UserError(f"give one of --table, --dataset and --embeddings; {len(given)} are given")
    source = given[0]
    if source == "embeddings" and arguments.labels is None:
        raise UserError("--embeddings needs --labels, a table with columns name and label")
    if source != "embeddings" and arguments.model is None:
        raise UserError(f"--{source} needs --model, which embeds it")
    for name, owner in (("labels", "embeddings"), ("test_embeddings", "embeddings"), ("test", "table")):
        if getattr(arguments, name) is not None and source != owner:
            raise UserError(f"--{name.replace('_', '-')} goes with --{owner}, not with --{source}; remove it")
    for name in ("model", *_EMBEDDING_DEFAULTS):
        if source == "embeddings" and getattr(arguments, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} has no use with --embeddings, which are computed already; remove it"
            )
    if source == "embeddings" and arguments.limit_train is not None:
        raise UserError("--limit-train goes with --table and --dataset; embed fewer items instead")
    for name in ("limit_train", "seeds"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least 1")
    tested = source == "dataset" or arguments.test is not None or arguments.test_embeddings is not None
    if tested and arguments.folds is not None:
        raise UserError("--folds: there is a test table, so nothing is cross-validated but the choice of the strength "
                        "(--inner-folds); remove it")  # fmt: skip
    if arguments.protocol == "caduceus-vep":
        fixed = next((name for name in _VEP_OPTIONS if getattr(arguments, name) is not None), None)
        if fixed is not None:
            raise UserError(f"--{fixed.replace('_', '-')}: --protocol caduceus-vep fixes it; remove one of the two")
        if not tested:
            raise UserError("--protocol caduceus-vep needs a test table; give --test, --test-embeddings or --dataset")
        if arguments.task != "classification":
            raise UserError("--protocol caduceus-vep is for two classes; leave out --task regression")


def _settings(arguments: argparse.Namespace) -> ProbeSettings:
    from ..probing import ALPHA_VALUES, C_VALUES, ProbeSettings

    estimator = arguments.estimator or ("logistic" if arguments.task == "classification" else "ridge")
    values: tuple[float, ...] = ALPHA_VALUES if estimator == "ridge" else C_VALUES
    if arguments.values is not None:
        try:
            values = tuple(float(text) for text in arguments.values.split(","))
        except ValueError as error:
            raise UserError(f"--values {arguments.values}: is not a list of numbers such as 0.1,1,10") from error
    folds = 5 if arguments.folds is None else arguments.folds
    return ProbeSettings(
        arguments.task, estimator, values, folds, 3 if arguments.inner_folds is None else arguments.inner_folds
    )


def _data(arguments: argparse.Namespace) -> tuple[ProbeData, ProbeData | None, dict[str, Any]]:
    """Training rows, test rows where there are some, and what identifies them."""
    from ..data.files import known_names
    from ..datasets import DATASETS, dataset_path
    from ..inference import load_model
    from ..probe_data import embed_table, join_embeddings
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
        tasks = [name for name in DATASETS if "." not in name]
        if arguments.dataset not in tasks:
            raise UserError(f"--dataset {arguments.dataset}: is unknown ({known_names(arguments.dataset, tasks)})")
        folder = dataset_path(arguments.dataset)
        table, test_table = folder / "train.tsv.gz", folder / "test.tsv.gz"
    model = load_model(arguments)
    about = {
        "model": model.name,
        "revision": model.revision,
        "pooling": arguments.pooling,
        "strand": arguments.strand,
        "table": arguments.dataset or str(table),
    }
    common = {
        "task": arguments.task,
        "pooling": arguments.pooling,
        "strand": arguments.strand,
        "batch_size": arguments.batch_size,
        "sequence_column": arguments.sequence_column,
        "label_column": arguments.label_column,
    }
    limit = {"limit": arguments.limit_train, "seed": arguments.seed}
    train = embed_table(model, table, group_column=arguments.groups, **limit, **common)
    return train, None if test_table is None else embed_table(model, test_table, **common), about


def _print(results: Sequence[ProbeResult], train: ProbeData, test: ProbeData | None, settings: ProbeSettings) -> None:
    import numpy as np

    from ...core.report import print_table

    strength = "alpha" if settings.estimator == "ridge" else "C"
    if test is None:
        how = "whole groups" if train.groups is not None else "rows"
        print(f"{train.source}: {len(train.y)} rows, {settings.estimator}, {len(results)} folds of {how}; mean ± sd")
    else:
        print(f"{test.source}: {len(test.y)} rows, {settings.estimator} fitted on {len(train.y)} rows; mean ± sd")
    chosen = ", ".join(f"{value:g}" for value in sorted({result.value for result in results}))
    rows = []
    for name in results[0].metrics:
        values = np.array([result.metrics[name] for result in results])
        defined = values[~np.isnan(values)]
        note = "" if len(defined) == len(values) else f" (of {len(defined)} folds, undefined in the others)"
        spread = f" ± {defined.std(ddof=1):.4f}" if len(defined) > 1 else ""
        rows.append((name, (f"{defined.mean():.4f}{spread}" if len(defined) else "undefined") + note))
    print_table(("metric", "value"), [*rows, (f"{strength} chosen", chosen)])


def _caduceus(arguments: argparse.Namespace) -> int:
    """Run the published protocol and say what is wrong with it."""
    import numpy as np

    from ...core.report import print_table
    from ..caduceus_protocol import FLAWS, ROWS, VALUES, best_on_test, caduceus_protocol

    train, test, about = _data(arguments)
    assert test is not None
    results = caduceus_protocol(train, test)
    best = best_on_test(results)
    rows = []
    for value in VALUES:
        part = [row for row in results if row.value == value]
        hard, decision = ([getattr(row, name) for row in part] for name in ("auc_hard", "auc_decision"))
        rows.append((
            f"{value:g}" + (" (best on test)" if value == best else ""),
            f"{np.mean(hard):.4f} ± {np.std(hard, ddof=1):.4f}",
            f"{np.mean(decision):.4f} ± {np.std(decision, ddof=1):.4f}",
        ))  # fmt: skip
    print(f"{test.source}: RBF SVM on {results[0].train} random rows, {len(results) // len(VALUES)} seeds; mean ± sd")
    print_table(("C", "AUC of hard predictions (the protocol's)", "AUC of the decision function"), rows)
    if len(train.y) <= ROWS:
        print(f"{train.source}: no more than {ROWS} rows, so every seed draws the same")
    for flaw in FLAWS:
        print(f"flaw of this protocol: {flaw}")
    print("for an honest figure: --protocol nested (the default)")
    if arguments.output is not None:
        _save(arguments.output, [vars(row) for row in results], {**about, "protocol": "caduceus-vep", "flaws": FLAWS})
    return 0


def _save(path: str, rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    from ...core.files import replacing

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        if path.lower().endswith(".json"):
            # JSON has no NaN, which stands for a metric that is not defined.
            clean = [{name: None if value != value else value for name, value in row.items()} for row in rows]
            json.dump({**about, "results": clean}, stream, indent=2, allow_nan=False)
            stream.write("\n")
            return
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


__all__ = ["probe"]
