"""``fit --folds K --seeds S``: the same training several times, and one table of means and standard deviations.

Every run is a ``fit`` of its own, in a process and a folder of its own, so that none sees what another left behind.
Its best checkpoint, chosen by validation alone, is then measured once on the validation and the test data.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import replacing
from ..report import print_table
from .arguments import find_configs, take_option, take_path
from .run_files import RunFolder, check_writable, new_run

#: How a data module says that there is nothing to measure on.
_NO_DATA = re.compile(r"^no (test|validation) data\b|has no (test|val)_set\b")
_SHOWN_RUNS = 6


@dataclass(frozen=True)
class SeriesRun:
    """One run of a series."""

    fold: int | None
    seed: int | None

    @property
    def name(self) -> str:
        """Name of its folder: ``fold0-seed1``, ``fold0`` or ``seed1``."""
        parts = (("fold", self.fold), ("seed", self.seed))
        return "-".join(f"{kind}{number}" for kind, number in parts if number is not None)

    def arguments(self, folds: int | None) -> list[str]:
        """Return what this run adds to the command line."""
        result: list[str] = []
        if self.fold is not None:
            result += ["--data.folds", str(folds), "--data.fold", str(self.fold)]
        if self.seed is not None:
            result += ["--seed_everything", str(self.seed), "--data.seed", str(self.seed)]
        return result


def parse_seeds(given: str) -> list[int]:
    """Return the seeds of ``--seeds``: ``1,2,5`` are these, ``3`` are 0, 1 and 2.

    Raises:
        UserError: it is neither.
    """
    words = [word.strip() for word in given.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words):
        raise UserError(f"--seeds {given}: expected seeds such as 1,2,3, or how many, such as 3")
    numbers = [int(word) for word in words]
    if "," not in given:
        if numbers[0] < 1:
            raise UserError("--seeds 0: needs at least 1")
        return list(range(numbers[0]))
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds {given}: a seed occurs twice")
    return numbers


def parse_folds(given: str) -> int:
    """Return the number of ``--folds``.

    Raises:
        UserError: it is no number of at least 2.
    """
    if not given.isdecimal() or int(given) < 2:
        raise UserError(f"--folds {given}: expected a number of at least 2")
    return int(given)


def plan(folds: int | None, seeds: Sequence[int] | None) -> list[SeriesRun]:
    """Return the runs: all folds of the first seed, then of the next."""
    return [
        SeriesRun(fold, seed)
        for seed in (seeds if seeds is not None else [None])
        for fold in (range(folds) if folds is not None else [None])
    ]


def take_series(argv: list[str]) -> tuple[int | None, list[int] | None] | None:
    """Remove ``--folds`` and ``--seeds`` from ``argv`` and return what they say, None where neither is given.

    Raises:
        UserError: they are no numbers of folds and no seeds.
    """
    folds, seeds = take_option(argv, "--folds"), take_option(argv, "--seeds")
    if (folds is None and seeds is None) or "--help" in argv or "-h" in argv:
        return None
    return None if folds is None else parse_folds(folds), None if seeds is None else parse_seeds(seeds)


def fit_series(
    series: tuple[int | None, list[int] | None],
    argv: list[str],
    domain: str,
    run: Callable[[str, list[str]], None],
) -> None:
    """Run a series of ``fit``; see :func:`run_series`.

    Args:
        series: what :func:`take_series` returned.
        argv: the other arguments of ``fit``.
        domain: name of the domain on the command line.
        run: runs one verb in this process.
    """
    output = take_path(argv, "--output")
    _, names = find_configs(argv, domain)
    folder = output or new_run(names[-1] if names else domain)
    run_series(argv, folder, domain=domain, folds=series[0], seeds=series[1], evaluate=run)


def run_series(
    argv: Sequence[str],
    folder: Path,
    *,
    domain: str,
    folds: int | None,
    seeds: Sequence[int] | None,
    evaluate: Callable[[str, list[str]], None],
) -> dict[str, Any]:
    """Run what is not finished yet, and write and print the table.

    Args:
        argv: arguments of ``fit`` without those of the series.
        folder: the runs go to its subfolders; ``summary.json`` and ``summary.tsv`` are written to it.
        domain: name of the domain on the command line.
        folds: number of folds, None for no cross-validation.
        seeds: the seeds, None for that of the configuration.
        evaluate: runs a verb (``validate`` or ``test``) with arguments in this process.

    Returns:
        What ``summary.json`` holds: ``folds``, ``seeds``, ``runs`` (``name``, ``fold``, ``seed``, ``seconds``,
        ``metrics``) and ``metrics`` (see :func:`summarise`).

    Raises:
        UserError: the folder holds another series, or an argument is one that the series sets.
        SystemExit: a run failed or was interrupted; with its status.
    """
    _check_arguments(argv, folds, seeds)
    check_writable(folder)
    _claim(folder, argv, folds)
    runs = plan(folds, seeds)
    results = []
    for number, run in enumerate(runs, 1):
        path = folder / run.name
        title = f"{run.name} ({number} of {len(runs)})"
        result = _read_result(path)
        if "metrics" in result:
            print(f"{title}: is finished, skipped", flush=True)
        else:
            print(f"{title}: {path}", flush=True)
            if not result:
                result = _fit(run, argv, path, folder, domain, folds)
            result["metrics"] = _measure(path, evaluate)
            _write_result(path, result)
        results.append({"name": run.name, "fold": run.fold, "seed": run.seed, **result})
    summary = {
        "folds": folds,
        "seeds": None if seeds is None else list(seeds),
        "runs": results,
        "metrics": summarise({result["name"]: result["metrics"] for result in results}),
    }
    _write_summary(folder, summary)
    _show(folder, summary)
    return summary


def summarise(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Return of each metric ``mean``, ``sd`` (of a sample: n - 1; None for one value), ``n`` and ``values`` by run.

    A metric that is undefined (None) in a run is left out of its mean; ``n`` says how many count.
    """
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    result: dict[str, dict[str, Any]] = {}
    for name in names:
        values = {run: found.get(name) for run, found in metrics.items()}
        known = [value for value in values.values() if value is not None]
        result[name] = {
            "mean": statistics.fmean(known) if known else None,
            "sd": statistics.stdev(known) if len(known) > 1 else None,
            "n": len(known),
            "values": values,
        }
    return result


def _check_arguments(argv: Sequence[str], folds: int | None, seeds: Sequence[int] | None) -> None:
    taken = {"--ckpt_path": "--folds and --seeds"}
    if folds is not None:
        taken |= {"--data.folds": "--folds", "--data.fold": "--folds"}
    if seeds is not None:
        taken |= {"--seed_everything": "--seeds", "--data.seed": "--seeds"}
    for word in argv:
        option = word.partition("=")[0]
        if option in taken:
            raise UserError(f"{option} cannot be given with {taken[option]}, which sets it for every run; leave it out")


def _claim(folder: Path, argv: Sequence[str], folds: int | None) -> None:
    """Note what the folder is for, so that a series is only ever continued by the same command."""
    wanted = {"arguments": list(argv), "folds": folds}
    path = folder / "series.json"
    if path.is_file():
        stored = json.loads(path.read_text())
        if stored == wanted:
            return
        if any(folder.glob("*/checkpoints/*.ckpt")):  # otherwise nothing was trained: the arguments were wrong
            raise UserError(
                f"{folder} holds a series of other arguments ({' '.join(stored['arguments'])}; folds "
                f"{stored['folds']}); choose another --output"
            )
    if (folder / "checkpoints").exists():
        raise UserError(f"{folder} already holds a run; choose another --output")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2) + "\n")


def _fit(
    run: SeriesRun, argv: Sequence[str], path: Path, folder: Path, domain: str, folds: int | None
) -> dict[str, Any]:
    """Train one run, or go on with it, and note that it is trained."""
    command = [*argv, *run.arguments(folds), "--output", str(path)]
    last = RunFolder(path).checkpoints / "last.ckpt"
    if last.is_file():
        print(f"{run.name}: goes on from {last}", flush=True)
        command += ["--ckpt_path", str(last)]
    begun = time.perf_counter()
    status = fit_in_process(domain, command)
    if status:
        remedy = "" if status == 2 else f"; the same command with --output {folder} goes on from here"
        print(f"longscan: {run.name} ended with status {status}{remedy}", file=sys.stderr)
        raise SystemExit(status)
    result = {"seconds": round(time.perf_counter() - begun, 1)}
    _write_result(path, result)
    return result


def fit_in_process(domain: str, arguments: list[str]) -> int:
    """Run ``longscan DOMAIN fit`` in a new process and return its exit status."""
    process = subprocess.Popen([sys.executable, "-m", "longscan", domain, "fit", *arguments])
    while True:
        try:
            status = process.wait()
            return status if status >= 0 else 128 - status
        except KeyboardInterrupt:
            continue  # it has the signal too, and saves before it ends


def _measure(path: Path, evaluate: Callable[[str, list[str]], None]) -> dict[str, float | None]:
    """Measure the best checkpoint of a run on the validation and on the test data, as far as there are any."""
    best = RunFolder(path).checkpoint("best")
    metrics: dict[str, float | None] = {}
    for verb in ("validate", "test"):
        try:
            evaluate(verb, ["--ckpt_path", str(best), "--trainer.devices", "1", "--trainer.strategy", "auto"])
        except UserError as error:
            if not _NO_DATA.search(str(error)):
                raise
            print(f"{path.name}: {verb}: {error}")
            continue
        metrics |= json.loads((path / verb / "metrics.json").read_text())["metrics"]
    return metrics


def _read_result(path: Path) -> dict[str, Any]:
    file = path / "run.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _write_result(path: Path, result: Mapping[str, Any]) -> None:
    with replacing(path / "run.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")


def _write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    with replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    runs = [run["name"] for run in summary["runs"]]
    lines = ["\t".join(["metric", "mean", "sd", "n", *runs])]
    for name, found in summary["metrics"].items():
        cells = [found["mean"], found["sd"], found["n"], *(found["values"][run] for run in runs)]
        lines.append("\t".join([name, *("" if cell is None else f"{cell:.6g}" for cell in cells)]))
    with replacing(folder / "summary.tsv") as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _show(folder: Path, summary: Mapping[str, Any]) -> None:
    runs = [run["name"] for run in summary["runs"]]
    wide = len(runs) > _SHOWN_RUNS
    rows = []
    for name, found in summary["metrics"].items():
        known = [value for value in found["values"].values() if value is not None]
        each = (min(known, default=None), max(known, default=None)) if wide else [found["values"][run] for run in runs]
        spread = "" if found["sd"] is None else f" ± {found['sd']:.4f}"
        count = "" if found["n"] == len(runs) else f" ({found['n']} of {len(runs)})"
        rows.append((name, f"{_text(found['mean'])}{spread}{count}", *map(_text, each)))
    print(f"\n{len(runs)} runs, each at its best checkpoint by validation (mean ± sd)")
    print_table(("metric", "mean ± sd", *(("lowest", "highest") if wide else runs)), rows)
    print("written")
    for name in ("summary.json", "summary.tsv"):
        print(f"  {folder / name}")


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
