"""Metrics of labels and of numbers against scikit-learn and scipy, and the losses against their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as reference

from longscan.core.errors import UserError
from longscan.core.training.target_metrics import MultiLabelMetrics, RegressionMetrics
from longscan.core.training.target_tasks import MultiLabelTask, RegressionTask


def labelled(samples: int = 90, labels: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that know something of the labels, rounded so that some are equal."""
    generator = np.random.default_rng(1)
    truth = (generator.random((samples, labels)) < 0.3).astype(np.float32)
    logits = np.round(generator.normal(size=truth.shape) + truth, 1).astype(np.float32)
    return torch.from_numpy(logits), torch.from_numpy(truth)


def test_labels_as_scikit_learn_measures_them() -> None:
    logits, truth = labelled()
    evaluation = MultiLabelMetrics("val")
    for start in range(0, 90, 40):
        evaluation.update(logits[start : start + 40], truth[start : start + 40])
    found = evaluation.compute()
    probabilities, wanted = logits.sigmoid().numpy(), truth.numpy()
    auroc = [reference.roc_auc_score(wanted[:, i], probabilities[:, i]) for i in range(5)]
    precision = [reference.average_precision_score(wanted[:, i], probabilities[:, i]) for i in range(5)]
    assert evaluation.per_target["auroc"].tolist() == pytest.approx(auroc, abs=1e-6)
    assert evaluation.per_target["average_precision"].tolist() == pytest.approx(precision, abs=1e-6)
    assert float(found["auroc"]) == pytest.approx(np.mean(auroc), abs=1e-6)
    assert float(found["auroc_median"]) == pytest.approx(np.median(auroc), abs=1e-6)
    assert float(found["average_precision"]) == pytest.approx(np.mean(precision), abs=1e-6)
    f1 = reference.f1_score(wanted, probabilities > 0.5, average="macro")
    assert float(found["f1"]) == pytest.approx(f1, abs=1e-6)
    assert float(found["loss"]) == pytest.approx(reference.log_loss(wanted.ravel(), probabilities.ravel()), abs=1e-5)
    assert float(found["labels_left_out"]) == 0


def test_labels_without_positives_are_left_out_and_counted() -> None:
    logits, truth = labelled()
    truth[:, 1], truth[:, 3] = 0, 1
    evaluation = MultiLabelMetrics("val")
    evaluation.update(logits, truth)
    found = evaluation.compute()
    kept = [0, 2, 4]
    auroc = [reference.roc_auc_score(truth[:, i], logits[:, i]) for i in kept]
    assert float(found["labels_left_out"]) == 2
    assert float(found["auroc"]) == pytest.approx(np.mean(auroc), abs=1e-6)
    assert float(found["auroc_median"]) == pytest.approx(np.median(auroc), abs=1e-6)
    assert evaluation.per_target["auroc"].isnan().tolist() == [False, True, False, True, False]
    nothing = MultiLabelMetrics("val")
    nothing.update(logits, torch.zeros_like(truth))
    assert torch.isnan(nothing.compute()["auroc"])
    with pytest.raises(UserError, match="the test set has no labelled sample"):
        MultiLabelMetrics("test").compute()


def test_numbers_as_scipy_measures_them() -> None:
    generator = np.random.default_rng(2)
    wanted = np.round(generator.normal(size=(70, 3)) * [1, 100, 0.01] + [0, 5000, 1], 3).astype(np.float32)
    found = (wanted + generator.normal(size=wanted.shape) * [0.5, 80, 0.02]).astype(np.float32)
    evaluation = RegressionMetrics("val")
    for start in range(0, 70, 30):
        part = slice(start, start + 30)
        evaluation.update(
            torch.from_numpy(found[part]), torch.from_numpy(wanted[part]), torch.ones(len(found[part]), 3)
        )
    values = evaluation.compute()
    columns = [(found[:, i].astype(float), wanted[:, i].astype(float)) for i in range(3)]
    expected = {
        "mse": [reference.mean_squared_error(b, a) for a, b in columns],
        "mae": [reference.mean_absolute_error(b, a) for a, b in columns],
        "r2": [reference.r2_score(b, a) for a, b in columns],
        "pearson": [stats.pearsonr(a, b)[0] for a, b in columns],
        "spearman": [stats.spearmanr(a, b)[0] for a, b in columns],
    }
    for name, each in expected.items():
        assert evaluation.per_target[name].tolist() == pytest.approx(each, rel=1e-5), name
        assert float(values[name]) == pytest.approx(np.mean(each), rel=1e-5), name
    assert float(values["loss"]) == 1


def test_a_number_that_does_not_vary_is_left_out() -> None:
    found = torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 3.0]])
    wanted = torch.tensor([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]])
    evaluation = RegressionMetrics("val")
    evaluation.update(found, wanted, torch.zeros(3, 2))
    values = evaluation.compute()
    assert float(values["spearman"]) == pytest.approx(1, abs=1e-5)
    assert float(values["r2"]) == pytest.approx(0.5)
    assert evaluation.per_target["r2"].isnan().tolist() == [False, True]
    with pytest.raises(UserError, match="no sample with targets"):
        RegressionMetrics("val").compute()


class Given(torch.nn.Module):
    """A model that answers its input."""

    def forward(self, input_ids: Any, mask: Any = None) -> Any:
        return input_ids


def batch() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor([[0.5, -1.0], [2.0, 0.0]]), "labels": torch.tensor([[1.0, 0.0], [3.0, 2.0]])}


def test_losses() -> None:
    x, y = batch()["input_ids"].double().numpy(), batch()["labels"].double().numpy()
    task = RegressionTask(Given())
    assert float(task.loss(batch())) == pytest.approx(np.mean((x - y) ** 2))
    task.target_std = torch.tensor([2.0, 0.5])
    assert float(task.loss(batch())) == pytest.approx(np.mean(((x - y) / [2, 0.5]) ** 2))
    assert torch.equal(task.predict_step(batch(), 0), batch()["input_ids"])
    task.loss_name = "poisson"
    assert float(task.loss(batch())) == pytest.approx(np.mean(np.exp(x) - y * x))
    assert task.predict_step(batch(), 0).numpy() == pytest.approx(np.exp(x), rel=1e-6)
    labels = {"input_ids": batch()["input_ids"], "labels": torch.tensor([[1.0, 0.0], [1.0, 1.0]])}
    several = MultiLabelTask(Given())
    z, p = labels["labels"].numpy(), 1 / (1 + np.exp(-x))
    terms = np.array([3.0, 1.0]) * z * np.log(p) + (1 - z) * np.log(1 - p)
    several.pos_weight = torch.tensor([3.0, 1.0])
    assert float(several.loss(labels)) == pytest.approx(-terms.mean(), rel=1e-6)
    assert several.predict_step(labels, 0).numpy() == pytest.approx(p, rel=1e-6)


def test_samples_that_even_out_processes_do_not_count() -> None:
    task = RegressionTask(Given())
    evaluation = task.start_evaluation("val")
    task.update_evaluation(evaluation, batch() | {"padding": torch.tensor([False, True])})
    assert float(evaluation.compute()["mse"]) == pytest.approx((0.25 + 1) / 2)
    with pytest.raises(UserError, match="no targets"):
        task.update_evaluation(evaluation, {"input_ids": batch()["input_ids"]})
