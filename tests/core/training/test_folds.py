"""Cross-validation and repeated seeds: the split, the statistics, and series of runs that go on where they stopped."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longscan.__main__ import main
from longscan.core.errors import UserError
from longscan.core.training import series
from longscan.core.training.folds import check_folds, stratified_folds
from longscan.core.training.series import parse_folds, parse_seeds, plan, summarise


def test_folds_cover_all_rows_once_and_are_stratified() -> None:
    targets = np.array([0] * 23 + [1] * 9 + [2] * 41)
    fold_of = stratified_folds(targets, 4, seed=3)
    assert sorted(np.bincount(fold_of)) == [18, 18, 18, 19]
    for target, expected in ((0, [5, 6, 6, 6]), (1, [2, 2, 2, 3]), (2, [10, 10, 10, 11])):
        assert sorted(np.bincount(fold_of[targets == target], minlength=4)) == expected


def test_the_seed_decides_the_folds() -> None:
    targets = np.tile([0, 1], 50)
    first, same, other = (stratified_folds(targets, 5, seed) for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).mean() > 0.5


def test_several_targets_are_dealt_out_by_size_alone() -> None:
    assert sorted(np.bincount(stratified_folds(np.zeros((11, 3)), 3, seed=0))) == [3, 4, 4]


def test_more_folds_than_a_class_has_rows_is_an_error() -> None:
    with pytest.raises(UserError) as error:
        stratified_folds(np.array([0] * 9 + [1] * 3), 4, 0, ["donor", "acceptor"])
    assert "folds=4: class 'acceptor' has only 3 training rows; use at most 3 folds" in str(error.value)


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (0, 0), (3, 3), (3, -1), (None, 2)])
def test_folds_that_there_are_not(folds: int | None, fold: int) -> None:
    with pytest.raises(UserError, match="fold"):
        check_folds(folds, fold)


def test_seeds_are_listed_or_counted() -> None:
    assert parse_seeds("1,2,7") == [1, 2, 7]
    assert parse_seeds("3") == [0, 1, 2]
    assert parse_seeds("5,") == [5]
    assert parse_folds("5") == 5
    assert [run.name for run in plan(2, [1, 4])] == ["fold0-seed1", "fold1-seed1", "fold0-seed4", "fold1-seed4"]
    assert [run.name for run in plan(None, [3])] == ["seed3"]
    assert [run.name for run in plan(2, None)] == ["fold0", "fold1"]


@pytest.mark.parametrize("given", ["", "a", "1,b", "0", "1,1", "-1", "1.5"])
def test_seeds_that_are_none(given: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(given)


@pytest.mark.parametrize("given", ["1", "0", "x", "-3", "2.5"])
def test_folds_that_are_none(given: str) -> None:
    with pytest.raises(UserError, match="--folds"):
        parse_folds(given)


def test_mean_and_sample_standard_deviation() -> None:
    found = summarise({"a": {"x": 1.0, "y": 5.0}, "b": {"x": 2.0, "y": None}, "c": {"x": 6.0}})
    assert found["x"]["mean"] == 3.0
    assert found["x"]["sd"] == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert found["x"]["values"] == {"a": 1.0, "b": 2.0, "c": 6.0}
    assert found["y"] == {"mean": 5.0, "sd": None, "n": 1, "values": {"a": 5.0, "b": None, "c": None}}
    assert summarise({"a": {"z": None}})["z"]["mean"] is None


@pytest.mark.parametrize("limit", [None, 15])
def test_the_data_module_validates_on_one_fold_and_trains_on_the_others(tmp_path: Path, limit: int | None) -> None:
    from longscan.genomics.data import SequenceTableDataModule

    rows = [f"r{i}\t{'ACGT'[i % 4] * 9}\t{'ab'[i % 2]}" for i in range(22)]
    (tmp_path / "train.tsv").write_text("\n".join(["id\tsequence\tlabel", *rows]) + "\n")
    (tmp_path / "val.tsv").write_text("id\tsequence\tlabel\nv\tACGT\ta\n")
    validated: list[str] = []
    for fold in range(3):
        module = SequenceTableDataModule(folder=str(tmp_path), folds=3, fold=fold, limit_train=limit, seed=5)
        module.setup("fit")
        train, val = (list(map(str, part.table.names)) for part in (module.train_set, module.val_set))
        assert not set(train) & set(val)
        assert len(set(train) | set(val)) == len(train) + len(val) == (limit or 22)
        assert "v" not in val
        validated += val
    assert len(validated) == len(set(validated)) == (limit or 22)
    with pytest.raises(UserError, match="fold=3: the folds are numbered 0 to 2"):
        SequenceTableDataModule(folder=str(tmp_path), folds=3, fold=3)


# Series of runs from the command line

LINE = (
    "genomics fit --config quickstart_finetune --data.dataset null --data.folder tables "
    "--data.batch_size 8 --model.options '{d_model: 8, n_layer: 1, d_state: 2}' --trainer.max_epochs 1 "
    "--trainer.accelerator cpu --trainer.enable_progress_bar false --output series"
)

Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Train in this process, and note the arguments of every run."""
    calls: list[list[str]] = []

    def fit(domain: str, arguments: list[str]) -> int:
        calls.append(arguments)
        return main([domain, "fit", *arguments])

    monkeypatch.setattr(series, "fit_in_process", fit)
    return calls


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs commands in a folder with small tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["longscan"])
    Path("tables").mkdir()
    generator = np.random.default_rng(0)
    for name, rows in (("train", 20), ("test", 8)):
        lines = ["sequence\tlabel"]
        for row in range(rows):
            odds = (0.45, 0.05, 0.05, 0.45) if row % 2 else (0.05, 0.45, 0.45, 0.05)
            lines.append("".join(generator.choice(list("ACGT"), size=24, p=odds)) + "\t" + ("at" if row % 2 else "gc"))
        Path("tables", f"{name}.tsv").write_text("\n".join(lines) + "\n")

    def command(line: str) -> tuple[int, str, str]:
        status = main(shlex.split(line))
        return status, *capsys.readouterr()

    return command


def metrics(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "metrics.json").read_text())["metrics"]


def test_a_series_ends_with_one_table_and_finished_runs_are_not_repeated(run: Run, started: list[list[str]]) -> None:
    status, out, err = run(f"{LINE} --folds 2 --seeds 1,2")
    assert status == 0, err
    names = ["fold0-seed1", "fold1-seed1", "fold0-seed2", "fold1-seed2"]
    assert [call[call.index("--output") + 1] for call in started] == [f"series/{name}" for name in names]
    assert all(call[call.index("--seed_everything") + 1] == call[call.index("--data.seed") + 1] for call in started)
    summary = json.loads(Path("series/summary.json").read_text())
    assert [result["name"] for result in summary["runs"]] == names
    for metric in ("val/loss", "val/accuracy", "test/loss", "test/mcc"):
        found = summary["metrics"][metric]
        values = [found["values"][name] for name in names]
        stage = "validate" if metric.startswith("val/") else "test"
        assert values == [metrics(f"series/{name}/{stage}")[metric] for name in names]
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    assert len(set(summary["metrics"]["val/loss"]["values"].values())) == 4
    table = [line.split("\t") for line in Path("series/summary.tsv").read_text().splitlines()]
    assert table[0] == ["metric", "mean", "sd", "n", *names]
    loss = summary["metrics"]["test/loss"]
    assert f"{loss['mean']:.4f} ± {loss['sd']:.4f}" in out

    # Again, with a run that was cut short after its training, and one that has to begin anew.
    finished = Path("series/fold1-seed1/run.json")
    stored = json.loads(finished.read_text())
    finished.write_text(json.dumps({"seconds": stored["seconds"]}))
    started.clear()
    status, out, err = run(f"{LINE} --folds 2 --seeds 1,2,3")
    assert status == 0, err
    assert [call[call.index("--output") + 1] for call in started] == ["series/fold0-seed3", "series/fold1-seed3"]
    assert out.count("is finished, skipped") == 3
    assert "fold0-seed1 (1 of 6): is finished, skipped" in out
    assert json.loads(finished.read_text()) == stored
    assert "lowest" not in out
    again = json.loads(Path("series/summary.json").read_text())["metrics"]["test/loss"]
    assert again["n"] == 6
    assert {name: again["values"][name] for name in names} == loss["values"]


def test_a_run_that_was_interrupted_goes_on_from_its_last_checkpoint(
    run: Run, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trains = series.fit_in_process

    def interrupted(domain: str, arguments: list[str]) -> int:
        assert trains(domain, [*arguments, "--trainer.max_steps", "2"]) == 0
        return 130

    monkeypatch.setattr(series, "fit_in_process", interrupted)
    status, _, err = run(f"{LINE} --seeds 7, --trainer.max_epochs 2")
    assert status == 130
    assert "seed7 ended with status 130; the same command with --output series goes on from here" in err
    assert not Path("series/summary.json").exists()
    monkeypatch.setattr(series, "fit_in_process", trains)
    status, _, err = run(f"{LINE} --seeds 7, --trainer.max_epochs 2")
    assert status == 0, err
    assert started[-1][-2:] == ["--ckpt_path", "series/seed7/checkpoints/last.ckpt"]
    assert json.loads(Path("series/seed7/metrics.json").read_text())["steps"] == 6  # 18 rows in batches of 8, twice


def test_without_test_data_the_table_has_the_validation_alone(run: Run, started: list[list[str]]) -> None:
    Path("tables/test.tsv").unlink()
    status, out, err = run(f"{LINE} --folds 2")
    assert status == 0, err
    assert "fold0: test: no test data" in out
    assert {name.split("/")[0] for name in json.loads(Path("series/summary.json").read_text())["metrics"]} == {"val"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--folds 1", "--folds 1: expected a number of at least 2"),
        ("--seeds x", "--seeds x: expected seeds"),
        ("--folds 2 --data.fold 1", "--data.fold cannot be given with --folds"),
        ("--seeds 2 --data.seed=1", "--data.seed cannot be given with --seeds"),
        ("--seeds 2 --ckpt_path last", "--ckpt_path cannot be given with"),
        ("--folds 20", "class 'at' has only 10 training rows"),
    ],
)
def test_mistakes_are_told_in_one_line(run: Run, started: list[list[str]], given: str, told: str) -> None:
    status, _, err = run(f"{LINE} {given}")
    assert status == 2
    assert told in err


def test_a_folder_with_another_series_is_left_alone(run: Run, started: list[list[str]]) -> None:
    Path("series/fold0/checkpoints").mkdir(parents=True)
    Path("series/fold0/checkpoints/last.ckpt").touch()
    Path("series/series.json").write_text(json.dumps({"arguments": ["--config", "other"], "folds": 3}))
    status, _, err = run(f"{LINE} --folds 2")
    assert status == 2
    assert "series holds a series of other arguments (--config other; folds 3); choose another --output" in err
    assert not started


def test_a_mistake_in_the_arguments_does_not_claim_the_folder(run: Run, started: list[list[str]]) -> None:
    status, _, err = run(f"{LINE} --folds 2 --data.no_such_option 1")
    assert status == 2
    assert "goes on from here" not in err
    assert not list(Path("series").glob("*/checkpoints/*"))
    series._claim(Path("series"), ["--other"], 2)
    assert json.loads(Path("series/series.json").read_text())["arguments"] == ["--other"]
