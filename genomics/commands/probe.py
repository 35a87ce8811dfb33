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
from .probe_sources import probe_data

if TYPE_CHECKING:
    import numpy as np

    from ..caduceus_protocol import ProtocolRow
    from ..probing import ProbeData, ProbeResult, ProbeSettings

_DESCRIPTION = """\
Fit a simple model on frozen embeddings and measure it on rows that it has not seen.

Nested cross-validation: of each fold, scaling, the choice of the strength (C, or alpha of ridge) and the fit see the
training rows alone. With a test table (--test, or that of --dataset) the strength is chosen by cross-validation inside
the training table, the model fitted on all of it, and the test table used once.

With --alt-column a row is a variant: its features are the mean hidden states around it in the reference and in the
alternative sequence, one after the other.
"""
#: How a table is embedded unless said; options that have no use with --embeddings, which were computed already.
_EMBEDDING_DEFAULTS = {"sequence_column": "sequence", "pooling": "mean", "strand": "forward"}
#: Options that go with one source of data alone.
_OWNERS = {
    "labels": "embeddings",
    "test_embeddings": "embeddings",
    "test": "table",
    "alt_column": "table",
    "category_column": "table",
    "distance_column": "table",
}
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
    train, test, about = probe_data(arguments)
    from ..probing import cross_validate, evaluate_parts

    if test is None:
        from tqdm import tqdm

        total = settings.folds * len(seeds)
        results = list(tqdm(cross_validate(train, settings, seeds), total=total, disable=None, desc="folds"))
    else:
        parts = _parts(test)
        results = [result for seed in seeds for result in evaluate_parts(train, test, parts, settings, seed)]
    _print(results, train, test, settings)
    if arguments.output is not None:
        rows = []
        for r in results:
            place = {} if train.distances is None else {"bucket": r.part}
            numbers = {"seed": r.seed, "fold": r.fold, "value": r.value, "train": r.train, "test": r.test}
            rows.append({**place, **numbers, **r.metrics})
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
    data.add_argument(
        "--alt-column", metavar="COLUMN", help="with --table: sequences with the variant; --sequence-column without"
    )
    data.add_argument(
        "--around", type=int, metavar="BASES", help="with --alt-column: averaged around the variant [1536]"
    )
    data.add_argument("--category-column", metavar="COLUMN", help="with --table: appended to the features (a tissue)")
    data.add_argument(
        "--distance-column", metavar="COLUMN", help="with --table: figures also below 30k, 100k, and above"
    )
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
    for name, owner in _OWNERS.items():
        if getattr(arguments, name) is not None and source != owner:
            raise UserError(f"--{name.replace('_', '-')} goes with --{owner}, not with --{source}; remove it")
    for name in ("model", *_EMBEDDING_DEFAULTS):
        if source == "embeddings" and getattr(arguments, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} has no use with --embeddings, which are computed already; remove it"
            )
    if source == "embeddings" and arguments.limit_train is not None:
        raise UserError("--limit-train goes with --table and --dataset; embed fewer items instead")
    if arguments.around is not None and arguments.alt_column is None:
        raise UserError("--around goes with --alt-column, which makes a row a variant; remove it")
    if arguments.pooling is not None and arguments.alt_column is not None:
        raise UserError("--pooling has no use with --alt-column: features are means around the variant; remove it")
    for name in ("limit_train", "seeds", "around"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least 1")
    tested = source == "dataset" or arguments.test is not None or arguments.test_embeddings is not None
    if tested and arguments.folds is not None:
        raise UserError("--folds: there is a test table, so nothing is cross-validated but the choice of the strength "
                        "(--inner-folds); remove it")  # fmt: skip
    if not tested and arguments.distance_column is not None:
        raise UserError("--distance-column needs a test table, whose rows it puts into buckets; give --test")
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


def _parts(test: ProbeData) -> dict[str, np.ndarray]:
    """Name to rows of what figures are given for: all, and with distances each bucket that has a row."""
    import numpy as np

    from ..caduceus_protocol import distance_buckets

    everything = {"all": np.arange(len(test.y))}
    if test.distances is None:
        return everything
    buckets = distance_buckets(test.distances, closed=False)
    return everything | {name: rows for name, rows in buckets.items() if len(rows)}


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
    parts = {result.part: result.test for result in results}
    by_bucket = train.distances is not None
    rows = [("rows", *map(str, parts.values()))] if by_bucket else []
    for name in results[0].metrics:
        cells = []
        for part in parts:
            values = np.array([result.metrics[name] for result in results if result.part == part])
            cells.append(_mean_cell(values))
        rows.append((name, *cells))
    last = (f"{strength} chosen", chosen, *[""] * (len(parts) - 1))
    print_table(("metric", *parts) if by_bucket else ("metric", "value"), [*rows, last])


def _mean_cell(values: np.ndarray) -> str:
    """Mean ± sd of the values (folds,) that are defined."""
    import numpy as np

    defined = values[~np.isnan(values)]
    note = "" if len(defined) == len(values) else f" (of {len(defined)} folds, undefined in the others)"
    spread = f" ± {defined.std(ddof=1):.4f}" if len(defined) > 1 else ""
    return (f"{defined.mean():.4f}{spread}" if len(defined) else "undefined") + note


def _caduceus(arguments: argparse.Namespace) -> int:
    """Run the published protocol, on all rows and by itself in each bucket of distances, and say what is wrong with
    it."""
    from dataclasses import replace

    from ..caduceus_protocol import BUCKET_FLAW, FLAWS, caduceus_protocol, distance_buckets

    train, test, about = probe_data(arguments)
    assert test is not None
    tables = {"all": (train, test)}
    flaws: tuple[str, ...] = FLAWS
    if train.distances is not None and test.distances is not None:
        flaws = (*FLAWS, BUCKET_FLAW)
        of_test = distance_buckets(test.distances, closed=True)
        for name, rows in distance_buckets(train.distances, closed=True).items():
            part, test_part = train.take(rows), test.take(of_test[name])
            which = f" at distances in {name}"
            tables[name] = (
                replace(part, source=train.source + which),
                replace(test_part, source=test.source + which),
            )
    saved = []
    for name, (part, test_part) in tables.items():
        if name != "all" and min(len(set(part.y)), len(set(test_part.y))) < 2:
            print(f"{test_part.source}: not measured; the {len(part.y)} training rows or the {len(test_part.y)} test "
                  f"rows lack a class")  # fmt: skip
            continue
        results = caduceus_protocol(part, test_part)
        _print_caduceus(results, part, test_part)
        place = {} if train.distances is None else {"bucket": name}
        saved += [{**place, **vars(row)} for row in results]
    for flaw in flaws:
        print(f"flaw of this protocol: {flaw}")
    print("for an honest figure: --protocol nested (the default)")
    if arguments.output is not None:
        _save(arguments.output, saved, {**about, "protocol": "caduceus-vep", "flaws": flaws})
    return 0


def _print_caduceus(results: list[ProtocolRow], train: ProbeData, test: ProbeData) -> None:
    import numpy as np

    from ...core.report import print_table
    from ..caduceus_protocol import ROWS, VALUES, best_on_test

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
    print(f"{test.source}: {len(test.y)} rows, RBF SVM on {results[0].train} random rows, "
          f"{len(results) // len(VALUES)} seeds; mean ± sd")  # fmt: skip
    print_table(("C", "AUC of hard predictions (the protocol's)", "AUC of the decision function"), rows)
    if len(train.y) <= ROWS:
        print(f"{train.source}: no more than {ROWS} rows, so every seed draws the same")


def _save(path: str, rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    from ...core.files import replacing

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        if path.lower().endswith(".json"):
            # JSON has no NaN, which stands for a metric that is not defined.
            clean = [{name: None if value != value else value for name, value in row.items()} for row in rows]
            json.dump({**about, "results": clean}, stream, indent=2, allow_nan=False)
            stream.write("\n")
            return
        # What one cell cannot hold, the lists, is in the JSON alone.
        same = {name: value for name, value in about.items() if isinstance(value, str | int | float)}
        writer = csv.DictWriter(stream, [*rows[0], *same], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **same} for row in rows)


__all__ = ["probe"]
