"""Labels and numbers through the command line, and predictions that do not depend on what else is in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

import longscan
from longscan.core.errors import UserError
from longscan.genomics.target_tasks import MultiLabelClassification, SequenceRegression
from longscan.genomics.tokenizer import DNATokenizer

TINY = (
    "--model.options '{d_model: 16, n_layer: 1}' --model.optimizer.lr 0.03 --data.batch_size 8 "
    "--data.tokenizer.special_tokens none"
)
FAST = "--trainer.accelerator cpu --trainer.enable_progress_bar false"
PLAIN = DNATokenizer(special_tokens="none")


def made_up(seed: int, rows: int) -> list[tuple[str, str, float, int, int]]:
    """Sequences of unequal length; a count of G and C in large units, whether it is high, whether A is rich."""
    generator = np.random.default_rng(seed)
    result = []
    for row in range(rows):
        gc = generator.uniform(0.1, 0.9)
        odds = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
        bases = "".join(generator.choice(list("ACGT"), size=int(generator.integers(20, 40)), p=odds))
        share = (bases.count("G") + bases.count("C")) / len(bases)
        result.append((f"r{row}", bases, 5000 + 1000 * share, int(share > 0.5), int(bases.count("A") > 7)))
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seed, rows in (("train", 0, 96), ("val", 1, 24), ("test", 2, 30)):
        lines = ["name\tsequence\tvalue\tgc\ta"]
        lines += ["\t".join(map(str, row)) for row in made_up(seed, rows)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.fa").write_text("".join(f">{row[0]}\n{row[1]}\n" for row in made_up(2, 30)))
    return tmp_path


def metrics(path: str) -> dict[str, Any]:
    return json.loads(Path(path, "metrics.json").read_text())


def table(path: str) -> tuple[list[str], list[str], np.ndarray]:
    header, *rows = [line.split("\t") for line in Path(path).read_text().splitlines()]
    return header, [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=float)


def done(outcome: Any) -> None:
    assert outcome.status == 0, outcome.err


def test_regression_in_the_units_of_the_data(command: Any, folder: Path) -> None:
    """Targets near 5,500 are learned with a loss near 1; the run, its checkpoint and its exported model agree."""
    data = "--data SequenceTableDataModule --data.target values --data.label_column value"
    line = f"genomics fit --model SequenceRegression {data} --data.folder {folder} --output run {TINY} {FAST}"
    done(command(f"{line} --trainer.max_epochs 8"))
    values = np.array([row[2] for row in made_up(0, 96)], dtype=np.float32).astype(float)
    model: Any = longscan.from_pretrained("run/model")
    assert (model.config.targets, model.config.class_names) == ("values", ("value",))
    assert model.config.target_mean[0] == pytest.approx(values.mean())
    assert model.config.target_std[0] == pytest.approx(values.std())
    best = "run/checkpoints/best.ckpt"
    done(command(f"genomics test --ckpt_path {best} {FAST}"))
    tested = metrics("run/test")["metrics"]
    assert tested["test/r2"] > 0.5
    done(
        command(f"genomics predict --ckpt_path {best} --data.predict_file {folder}/test.tsv --predictions a.tsv {FAST}")
    )
    task = f"--model SequenceRegression --model.pretrained run/model {data} --data.tokenizer.special_tokens none"
    done(command(f"genomics predict {task} --data.predict_file {folder}/test.fa --predictions b.tsv {FAST}"))
    header, names, found = table("a.tsv")
    assert header == ["name", "predicted_value"]
    assert names == [f"r{i}" for i in range(30)]
    wanted = np.array([row[2] for row in made_up(2, 30)])
    assert tested["test/mse"] == pytest.approx(((found[:, 0] - wanted) ** 2).mean(), rel=1e-3)
    assert tested["test/pearson"] == pytest.approx(stats.pearsonr(found[:, 0], wanted)[0], abs=1e-3)
    assert tested["test/spearman"] == pytest.approx(stats.spearmanr(found[:, 0], wanted)[0], abs=1e-2)
    assert metrics("run/test")["per_target"]["test/mse"] == {"value": tested["test/mse"]}
    assert table("b.tsv")[2] == pytest.approx(found, abs=0.1)
    with torch.no_grad():
        alone = [float(model(**PLAIN.encode_batch([row[1]]))) for row in made_up(2, 30)]
    assert found[:, 0] == pytest.approx(np.array(alone), abs=0.02)  # six digits are written
    # Another task is told that this is no model of its kind.
    wrong = command(f"genomics predict {task.replace('SequenceRegression', 'MultiLabelClassification')} --data.target "
                    f"labels --data.predict_file {folder}/test.fa --predictions c.tsv {FAST}")  # fmt: skip
    assert wrong.status == 2
    assert "run/model: predicts values, MultiLabelClassification needs a model of labels" in wrong.err
    # Resumed, the scale is that of the checkpoint.
    done(command(f"{line} --trainer.max_epochs 9 --ckpt_path last"))
    assert longscan.from_pretrained("run/model").config.target_mean == model.config.target_mean


def test_poisson_regression_predicts_rates(command: Any, folder: Path) -> None:
    data = "--data SequenceTableDataModule --data.target values --data.label_columns '[gc, a]'"
    line = f"genomics fit --model SequenceRegression --model.loss poisson {data} --data.folder {folder} {TINY} {FAST}"
    done(command(f"{line} --output run --trainer.max_epochs 2"))
    model: Any = longscan.from_pretrained("run/model")
    assert (model.config.targets, model.config.target_mean) == ("rates", None)
    path = f"--data.predict_file {folder}/test.tsv --predictions out.tsv {FAST}"
    done(command(f"genomics predict --ckpt_path run/checkpoints/best.ckpt {path}"))
    header, _, found = table("out.tsv")
    assert header == ["name", "predicted_gc", "predicted_a"]
    with torch.no_grad():
        rates = model(**PLAIN.encode_batch([made_up(2, 30)[3][1]])).exp()[0]
    assert found[3] == pytest.approx(rates.numpy(), rel=1e-4)
    (folder / "train.tsv").write_text("sequence\tgc\ta\nACGT\t-1\t2\nAA\t1\t1\n")
    refused = command(f"{line} --output other --trainer.max_epochs 1")
    assert refused.status == 2
    assert "loss 'poisson' is for counts, but a target is -1; take loss 'mse'" in refused.err


def test_labels_are_told_one_by_one(command: Any, folder: Path) -> None:
    data = "--data SequenceTableDataModule --data.target labels --data.label_columns '[gc, a]'"
    line = f"genomics fit --model MultiLabelClassification --model.pos_weight balanced {data} --data.folder {folder}"
    done(command(f"{line} --output run {TINY} {FAST} --trainer.max_epochs 8 --checkpoint.monitor val/auroc "
                 "--checkpoint.mode max"))  # fmt: skip
    best = "run/checkpoints/best.ckpt"
    done(command(f"genomics test --ckpt_path {best} {FAST}"))
    done(
        command(f"genomics predict --ckpt_path {best} --data.predict_file {folder}/test.fa --predictions o.tsv {FAST}")
    )
    header, _, found = table("o.tsv")
    assert header == ["name", "probability_gc", "probability_a"]
    truth = np.array([row[3:] for row in made_up(2, 30)])
    tested = metrics("run/test")
    auroc = {name: roc_auc_score(truth[:, i], found[:, i]) for i, name in enumerate(("gc", "a"))}
    assert tested["per_target"]["test/auroc"] == pytest.approx(auroc, abs=2e-3)
    assert tested["metrics"]["test/auroc"] == pytest.approx(np.mean(list(auroc.values())), abs=2e-3)
    assert auroc["gc"] > 0.9
    assert tested["metrics"]["test/labels_left_out"] == 0
    assert longscan.from_pretrained("run/model").config.targets == "labels"  # type: ignore[union-attr]


def test_balanced_weights(folder: Path) -> None:
    """Negatives over positives for each label, 1 where there is nothing to balance."""

    class Data:
        target, class_names = "labels", ["a", "b", "c"]
        tokenizer = PLAIN

        class train_set:
            targets = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.uint8)

    class Trainer:
        datamodule, ckpt_path = Data, None

        class state:
            fn = "fit"

    def built(**options: Any) -> Any:
        small = {"d_model": 8, "n_layer": 1}
        task = MultiLabelClassification(model="caduceus_ph_1k_d118", options=small, **options)
        task._trainer = Trainer  # type: ignore[assignment]
        task.model = task.build_model()
        return task

    assert built(pos_weight="balanced").pos_weight.tolist() == [3, 1, 1]
    assert built(pos_weight=2.5).pos_weight.tolist() == [2.5] * 3
    assert built().pos_weight is None
    assert built().model.config.num_classes == 3


def test_arguments_wrong(command: Any, folder: Path) -> None:
    with pytest.raises(UserError, match="pos_weight is -1"):
        MultiLabelClassification(pos_weight=-1)
    with pytest.raises(UserError, match="loss is 'mae'"):
        SequenceRegression(loss="mae")  # type: ignore[arg-type]
    line = f"genomics fit --model SequenceRegression --data SequenceTableDataModule --data.folder {folder} --output run"
    outcome = command(f"{line} --data.label_column gc {FAST}")
    assert outcome.status == 2
    assert "SequenceRegression needs data.target 'values', got 'class'; set it" in outcome.err


@pytest.mark.parametrize("batch_size", [1, 7])
def test_probabilities_do_not_depend_on_the_rest_of_the_file(
    command: Any, classifier: Path, folder: Path, batch_size: int
) -> None:
    """One record alone, and among others of other lengths: the same to 1e-5, and rows in the order of the file."""
    rows = made_up(5, 25)
    line = f"genomics predict --model.pretrained {classifier}/model --data.batch_size {batch_size} {FAST}"
    Path("all.fa").write_text("".join(f">{row[0]}\n{row[1]}\n" for row in rows))
    done(command(f"{line} --data.predict_file all.fa --predictions all.tsv"))
    _, names, together = _probabilities("all.tsv")
    assert names == [row[0] for row in rows]
    for row in (0, 11, 24):
        Path("one.fa").write_text(f">x\n{rows[row][1]}\n>long\n{'ACGT' * 50}\n")
        done(command(f"{line} --data.predict_file one.fa --predictions one.tsv"))
        assert _probabilities("one.tsv")[2][0] == pytest.approx(together[row], abs=1e-5)


def _probabilities(path: str) -> tuple[list[str], list[str], np.ndarray]:
    header, *rows = [line.split("\t") for line in Path(path).read_text().splitlines()]
    return header, [row[0] for row in rows], np.array([row[2:] for row in rows], dtype=float)
