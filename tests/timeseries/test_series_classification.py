"""Classes of whole series end to end: files, data module, task, the verb, and what it says of bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_files import HEADER, bursts, waves

from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey
from longscan.timeseries.classification import (
    class_probabilities,
    fit_kernel_bank,
    nearest_neighbour,
    score_classes,
)
from longscan.timeseries.data import read_ts
from longscan.timeseries.data.classification import SeriesClassificationDataModule, problem_files
from longscan.timeseries.tasks.classification import balanced_accuracy


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    """Folder ``Waves`` with the two files of a problem."""
    folder = tmp_path / "Waves"
    folder.mkdir()
    waves(folder / "Waves_TRAIN.ts", 20, 0)
    waves(folder / "Waves_TEST.ts", 30, 1)
    return folder


def test_official_split_and_validation_from_training(problem: Path) -> None:
    data = SeriesClassificationDataModule(str(problem), val_fraction=0.3, batch_size=4, seed=5)
    data.setup("fit")
    train, held = set(data.train_set.rows), set(data.val_set.rows)
    assert (len(train), len(held), len(data.test_set)) == (14, 6, 30)
    assert not train & held
    assert data.data.labels is not None
    assert np.bincount(data.data.labels[sorted(held)]).tolist() == [3, 3]
    rows = np.concatenate([data.data.values[row] for row in sorted(train)])
    assert np.array_equal(np.sort(data.training_rows(), 0), np.sort(rows, 0))
    batch = data.collate([data.test_set[SampleKey(0, index)] for index in (3, 0)])
    lengths = [len(read_ts(problem / "Waves_TEST.ts").values[row]) for row in (3, 0)]
    assert batch["input_ids"].shape == (2, max(lengths), 2)
    assert batch["mask"].sum(1).tolist() == lengths
    assert (batch["input_ids"][~batch["mask"]] == 0).all()
    assert batch["labels"].tolist() == [1, 0]
    assert batch["name"] == ["4", "1"]


def test_classes_keep_the_order_of_training(tmp_path: Path, problem: Path) -> None:
    other = tmp_path / "other.ts"
    other.write_text((problem / "Waves_TEST.ts").read_text().replace("true slow fast", "true fast slow"))
    data = SeriesClassificationDataModule(str(problem), test=str(other))
    data.setup("test")
    assert data.class_names == ["slow", "fast"]
    assert data.test_set.labels.tolist()[:3] == [0, 1, 0]


def test_scores() -> None:
    predicted, truth = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1])
    scores = score_classes(predicted, truth)
    assert scores.accuracy == pytest.approx(3 / 5)
    assert scores.balanced_accuracy == pytest.approx((1 + 1 / 3) / 2)
    assert scores.f1 == pytest.approx((2 * 2 / 5 + 2 * 1 / 4 + 0) / 3)
    confusion = torch.tensor([[2, 0, 0], [1, 1, 1], [0, 0, 0]])
    assert float(balanced_accuracy(confusion)) == pytest.approx(scores.balanced_accuracy)


def test_the_bank_finds_what_distance_does_not(tmp_path: Path) -> None:
    train, test = (read_ts(bursts(tmp_path / f"{seed}.ts", 40, seed)) for seed in range(2))
    model = fit_kernel_bank(train, kernels=200)
    probabilities = class_probabilities(model, test, batch_size=7)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert np.allclose(probabilities, class_probabilities(model, test, batch_size=30), atol=1e-4)
    assert test.labels is not None
    ours = score_classes(probabilities.argmax(1), test.labels).accuracy
    naive = score_classes(nearest_neighbour(train, test), test.labels).accuracy
    assert ours > 0.95
    assert naive < 0.8


def test_nearest_neighbour_by_hand(tmp_path: Path) -> None:
    head = "@classLabel true a b\n@data\n"
    (tmp_path / "train.ts").write_text(f"{head}1,2,3:a\n9,9,9:b\n")
    (tmp_path / "test.ts").write_text(f"{head}8,9,7:a\n2,2:b\n0,?,1:a\n")
    found = nearest_neighbour(read_ts(tmp_path / "train.ts"), read_ts(tmp_path / "test.ts"))
    assert found.tolist() == [1, 0, 0]


def test_classify_fits_saves_and_reads_again(problem: Path, command: Any) -> None:
    outcome = command(f"timeseries classify --train {problem} --data {problem}/Waves_TEST.ts --kernels 100 "
                      "--device cpu --save bank --output classes.tsv")  # fmt: skip
    assert outcome.status == 0, outcome.err
    lines = [line.split("\t") for line in Path("classes.tsv").read_text().splitlines()]
    assert lines[0] == ["series", "prediction", "probability_slow", "probability_fast"]
    assert len(lines) == 31
    assert lines[1][0] == "1"
    right = sum(line[1] == ("slow", "fast")[index % 2] for index, line in enumerate(lines[1:]))
    row = next(line for line in outcome.out.splitlines() if line.startswith("KernelBankClassifier"))
    assert row.split()[1] == f"{right / 30:.4f}"
    for baseline in ("nearest neighbour", "most frequent"):
        assert baseline in outcome.out
    assert "most frequent         0.5000" in outcome.out
    again = command(f"timeseries classify --model bank --data {problem}/Waves_TEST.ts --device cpu --output again.tsv")
    assert again.status == 0, again.err
    assert Path("again.tsv").read_text() == Path("classes.tsv").read_text()


def test_the_configuration_builds_what_it_says(problem: Path, command: Any) -> None:
    line = f"--config timeseries/classification --data.train {problem} --output run --trainer.accelerator cpu"
    outcome = command(f"timeseries fit {line} --trainer.max_steps 1 --trainer.enable_progress_bar false")
    assert outcome.status == 0, outcome.err
    assert "SeriesClassifier: 126,658 parameters" in outcome.out
    assert Path("run/model/config.json").is_file()
    config = json.loads(Path("run/model/config.json").read_text())
    assert config["config"]["class_names"] == ["slow", "fast"]


def test_fit_test_predict_and_classify_agree(problem: Path, command: Any) -> None:
    options = "{d_model: 16, n_layers: 1, mixer: s4d, dropout: 0.0}"
    line = (f"--config timeseries/classification --data.train {problem} --model.options '{options}' "
            "--trainer.accelerator cpu --trainer.enable_progress_bar false --data.seed 1")  # fmt: skip
    outcome = command(f"timeseries fit {line} --trainer.max_epochs 12 --model.optimizer.lr 0.01 --output run")
    assert outcome.status == 0, outcome.err
    rest = f"{line} --ckpt_path run/checkpoints/best.ckpt"
    outcome = command(f"timeseries test {rest} --output tested")
    assert outcome.status == 0, outcome.err
    metrics = json.loads(Path("tested/metrics.json").read_text())["metrics"]
    assert {"test/accuracy", "test/balanced_accuracy", "test/f1", "test/mcc", "test/auroc", "test/loss"} <= set(metrics)
    assert metrics["test/accuracy"] > 0.8
    outcome = command(f"timeseries classify --model run --data {problem}/Waves_TEST.ts --device cpu --output c.tsv")
    assert outcome.status == 0, outcome.err
    assert f"SeriesClassifier  {metrics['test/accuracy']:.4f}" in outcome.out
    outcome = command(f"timeseries predict {rest} --output predicted --predictions p.tsv")
    assert outcome.status == 0, outcome.err
    told, asked = ([line.split("\t") for line in Path(name).read_text().splitlines()] for name in ("p.tsv", "c.tsv"))
    assert [line[:2] for line in told] == [line[:2] for line in asked]
    wanted = np.array([line[2:] for line in told[1:]], dtype=float)
    assert np.allclose(wanted, np.array([line[2:] for line in asked[1:]], dtype=float), atol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (HEADER, "it has no series after @data"),
        ("1,2,3:slow\n", "line 1: values before @data"),
        (f"{HEADER}1,2:3,4:slow\n5,6:fast\n", "line 7: 1 channels, the series before have 2"),
        (f"{HEADER}1,2:3,x:slow\n", "line 6: channel 2: 'x' is neither a number nor ?"),
        (f"{HEADER}1,inf:3,4:slow\n", "line 6: a value is infinite"),
        (f"{HEADER}1,2:3,4:slow\nfast\n", "line 7: 'fast' has a label and no values"),
        (f"{HEADER}1,2:3,4:medium\n", "class 'medium' of series 1 is not in @classLabel"),
        (f"{HEADER}1,2:3,4:slow\n5,6:7,8:slow\n", "only one class, 'slow'"),
        ("@targetlabel true\n@data\n1,2:0.5\n", "has no classes to learn"),
    ],
)
def test_bad_training_files(text: str, message: str, tmp_path: Path, problem: Path, command: Any) -> None:
    (tmp_path / "bad.ts").write_text(text)
    for verb in (
        f"classify --train bad.ts --data {problem}/Waves_TEST.ts --output c.tsv",
        "fit --config timeseries/classification --data.train bad.ts --output run --trainer.accelerator cpu",
    ):
        outcome = command(f"timeseries {verb}")
        assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
        assert message in outcome.err
        assert "bad.ts" in outcome.err


def test_files_that_do_not_fit_together(tmp_path: Path, problem: Path, command: Any) -> None:
    one = waves(tmp_path / "One_TRAIN.ts", 4, 0, channels=1)
    test = problem / "Waves_TEST.ts"
    (tmp_path / "New.ts").write_text(test.read_text().replace("slow fast", "slow fast new") + "1,2:3,4:new\n")
    command(f"timeseries classify --train {problem} --data {test} --kernels 20 --save bank --output c.tsv")
    for line, message in (
        (f"--train {one} --data {test}", "its series have 2 channels, those of"),
        (f"--train {problem} --data New.ts", "class 'new' of series 31 is none of"),
        ("--model bank --data New.ts", "class 'new' of series 31 is none of the model's: slow, fast"),
        (f"--model bank --data {one}", "its series have 1 channels, the model reads 2"),
        (f"--model series_classifier --data {test}", "series_classifier"),
        (f"--data {test}", "give either --model, a trained one, or --train"),
        (f"--train {tmp_path} --data {test}", "name a file, of New.ts, One_TRAIN.ts"),
        (f"--model bank --save other --data {test}", "--save keeps the model that --train fits"),
        (f"--train {problem} --data gone.ts", "gone.ts"),
    ):
        outcome = command(f"timeseries classify {line} --output out.tsv")
        assert (outcome.status, outcome.err.count("\n")) == (2, 1), (line, outcome.err)
        assert message in outcome.err, (line, outcome.err)
        assert not Path("out.tsv").exists()


def test_closed_forms_are_not_trained_by_steps(problem: Path, command: Any) -> None:
    line = f"--config timeseries/classification --data.train {problem} --output run --trainer.accelerator cpu"
    outcome = command(f"timeseries fit {line} --model.model kernel_bank_classifier --model.options {{}}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "classify --train" in outcome.err


def test_files_of_a_problem(problem: Path) -> None:
    train, test = problem / "Waves_TRAIN.ts", problem / "Waves_TEST.ts"
    assert problem_files(problem) == problem_files(train) == (train, test)
    assert problem_files(test)[1] is None
    with pytest.raises(UserError, match="val_fraction"):
        SeriesClassificationDataModule(str(train), val_fraction=1.0)
