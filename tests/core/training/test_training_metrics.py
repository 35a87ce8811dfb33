"""Metrics of whole evaluation sets, against scikit-learn and by hand."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import nn

from longscan.core.errors import UserError
from longscan.core.training.data import ResumableDataModule
from longscan.core.training.metrics import ClassificationMetrics, TokenMetrics
from longscan.core.training.tasks import ClassificationTask, LanguageModelTask


def _random_scores(classes: int, count: int = 157) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator) + nn.functional.one_hot(labels, classes)
    return logits, labels


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classification_metrics_are_those_of_sklearn(classes: int) -> None:
    logits, labels = _random_scores(classes)
    measured = ClassificationMetrics("test")
    for part in torch.arange(len(labels)).split(20):  # the last batch is shorter
        measured.update(logits[part], labels[part])
    found = {name: float(value) for name, value in measured.compute().items()}
    probabilities, truth = logits.double().softmax(-1).numpy(), labels.numpy()
    guess = probabilities.argmax(1)
    auroc: Any = (
        sklearn_metrics.roc_auc_score(truth, probabilities[:, 1])
        if classes == 2
        else sklearn_metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    )
    assert found == pytest.approx(
        {
            "loss": sklearn_metrics.log_loss(truth, probabilities),
            "accuracy": sklearn_metrics.accuracy_score(truth, guess),
            "mcc": sklearn_metrics.matthews_corrcoef(truth, guess),
            "f1": sklearn_metrics.f1_score(truth, guess, average="macro"),
            "auroc": auroc,
        },
        abs=2e-6,
    )
    assert measured.confusion is not None
    assert measured.confusion.tolist() == sklearn_metrics.confusion_matrix(truth, guess).tolist()


def test_ignored_and_absent_classes() -> None:
    logits, labels = _random_scores(4)
    labels = torch.where(labels == 3, -100, labels)
    kept = labels >= 0
    measured = ClassificationMetrics("test")
    measured.update(logits, labels)
    found = measured.compute()
    assert float(found["accuracy"]) == pytest.approx(float((logits.argmax(1) == labels)[kept].float().mean()))
    one_against_rest = [
        sklearn_metrics.roc_auc_score((labels[kept] == index).numpy(), logits[kept].softmax(-1)[:, index].numpy())
        for index in range(3)
    ]
    assert float(found["auroc"]) == pytest.approx(np.mean(one_against_rest), abs=1e-6)

    single = ClassificationMetrics("test")
    single.update(logits[:4], torch.zeros(4, dtype=torch.int64))
    assert math.isnan(float(single.compute()["auroc"]))


def test_evaluation_sets_that_say_nothing_are_errors() -> None:
    tokens = TokenMetrics("val")
    tokens.update(torch.zeros(1, 3, 4), torch.full((1, 3), -100))
    with pytest.raises(UserError, match="the val set has no target token"):
        tokens.compute()
    classes = ClassificationMetrics("held out")
    classes.update(torch.zeros(2, 3), torch.full((2,), -100))
    with pytest.raises(UserError, match="the held out set has no labelled sample"):
        classes.compute()
    with pytest.raises(UserError, match="label 3, but the model knows classes 0 to 2"):
        classes.update(torch.zeros(2, 3), torch.tensor([0, 3]))


class Logits(nn.Module):
    """A fixed table of logits per token, so that every value can be computed by hand."""

    def __init__(self, table: torch.Tensor, pooled: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.pooled = pooled

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        logits = self.table[input_ids]
        return logits[:, 0] if self.pooled else logits


class Batches(ResumableDataModule):
    """Ready-made samples: dicts of input_ids and labels."""

    def __init__(self, samples: Any, batch_size: int = 2) -> None:
        super().__init__(batch_size=batch_size)
        self.samples = samples

    def setup(self, stage: str | None = None) -> None:
        self.val_set = self.test_set = self.predict_set = (
            {name: _Samples(part) for name, part in self.samples.items()}
            if isinstance(self.samples, dict)
            else _Samples(self.samples)
        )

    def collate(self, samples: list[Any]) -> dict[str, Any]:
        return {
            "input_ids": nn.utils.rnn.pad_sequence([sample[0] for sample in samples], batch_first=True),
            "labels": nn.utils.rnn.pad_sequence([sample[1] for sample in samples], True, -100)
            if samples[0][1].dim()
            else torch.stack([sample[1] for sample in samples]),
        }


class _Samples:
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Any) -> Any:
        return self.samples[key.index]


def _test(task: Any, data: Any) -> dict[str, float]:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.test(task, data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.filterwarnings("ignore")
def test_perplexity_counts_tokens_not_batches() -> None:
    table = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0], [0.0, 0.0, 3.0]])
    generator = torch.Generator().manual_seed(0)
    samples = []
    for length, ignored in [(9, 0), (4, 2), (1, 0)]:  # batches of 11 tokens and of 1
        tokens, labels = torch.randint(3, (2, length), generator=generator)
        labels[:ignored] = -100
        samples.append((tokens, labels))
    losses, hits = [], []
    for tokens, labels in samples:
        for token, label in zip(tokens.tolist(), labels.tolist(), strict=True):
            if label >= 0:
                losses.append(-float(table[token].double().log_softmax(-1)[label]))
                hits.append(int(table[token].argmax()) == label)
    found = _test(LanguageModelTask(Logits(table)), Batches(samples))
    assert len(losses) == 12
    mean = float(np.mean(losses))
    assert found == pytest.approx(
        {
            "test/loss": mean,
            "test/perplexity": math.exp(mean),
            "test/bits_per_token": mean / math.log(2),
            "test/accuracy": float(np.mean(hits)),
        },
        rel=1e-6,
    )


@pytest.mark.filterwarnings("ignore")
def test_several_test_sets_by_name() -> None:
    task = ClassificationTask(Logits(torch.eye(3), pooled=True))
    right = [(torch.tensor([index]), torch.tensor(index)) for index in (0, 1, 2)]
    wrong = [(torch.tensor([index]), torch.tensor((index + 1) % 3)) for index in (0, 1)]
    found = _test(task, Batches({"easy": right, "hard": wrong}))
    assert (found["test/easy/accuracy"], found["test/hard/accuracy"]) == (1.0, 0.0)
    assert found["test/easy/auroc"] == 1.0
    assert task.confusion["test", "easy"].tolist() == torch.eye(3).int().tolist()
    assert task.confusion["test", "hard"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_training_losses() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    task = LanguageModelTask(Logits(table))
    batch = {"input_ids": torch.tensor([[0, 1, 1]]), "labels": torch.tensor([[1, 1, -100]])}
    expected = (math.log(1 + math.e) + math.log(1 + math.exp(-2))) / 2
    assert float(task.loss(batch).detach()) == pytest.approx(expected)
    # bf16 logits, as autocast gives: the loss is float32 all the same.
    assert LanguageModelTask(Logits(table.bfloat16())).loss(batch).dtype == torch.float32
    nothing = task.loss({"input_ids": torch.tensor([[0]]), "labels": torch.tensor([[-100]])})
    assert float(nothing.detach()) == 0.0
    nothing.backward()
    assert torch.equal(task.model.table.grad, torch.zeros(2, 2))
