"""Metrics over a whole evaluation set, gathered batch by batch and over all processes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)

from ..errors import UserError

IGNORED = -100


class TokenMetrics(Metric):
    """Loss, perplexity, bits per token and accuracy, each token counting once whatever batch it came in.

    Sums are kept in float64: a mean of batch means would weigh the tokens of a short last batch more.
    """

    full_state_update = False
    loss_sum: Tensor
    tokens: Tensor
    correct: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor) -> None:  # type: ignore[override]
        """Add a batch: ``logits`` (batch, length, vocabulary), ``targets`` int64 (batch, length), -100 ignored."""
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        kept = targets != IGNORED
        self.loss_sum += losses.double().sum()
        self.tokens += kept.sum()
        self.correct += ((logits.argmax(-1) == targets) & kept).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return loss (nats per token), perplexity, bits_per_token and accuracy.

        Raises:
            UserError: no token of the set was a target.
        """
        if self.tokens == 0:
            raise UserError(f"the {self.name} set has no target token: every label is -100 (are all inputs unknown?)")
        loss = self.loss_sum / self.tokens
        return {
            "loss": loss.float(),
            "perplexity": loss.exp().float(),
            "bits_per_token": (loss / math.log(2)).float(),
            "accuracy": (self.correct.double() / self.tokens).float(),
        }


class ClassificationMetrics:
    """Loss, accuracy, Matthews correlation, macro F1, AUROC and the confusion matrix of one set.

    With two classes AUROC is that of class 1; with more it is the mean over classes of one against the rest, over the
    classes that the set holds examples of. For a set of one class it is undefined: NaN.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.num_classes: int | None = None
        self.confusion: Tensor | None = None
        self._loss = MeanLoss()
        self._metrics: MetricCollection | None = None

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: ``logits`` (batch, classes), ``labels`` int64 (batch,), -100 ignored."""
        kept = labels != IGNORED
        logits, labels = logits[kept].float(), labels[kept]
        if self._metrics is None:
            self.num_classes = logits.shape[-1]
            self._metrics = _collection(self.num_classes).to(logits.device)
            self._loss = self._loss.to(logits.device)
        assert self.num_classes is not None
        if len(labels) == 0:
            return
        if int(labels.max()) >= self.num_classes or int(labels.min()) < 0:
            wrong = int(labels.max()) if int(labels.max()) >= self.num_classes else int(labels.min())
            raise UserError(
                f"the {self.name} set has the label {wrong}, but the model knows classes 0 to {self.num_classes - 1}"
            )
        self._loss.update(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
        self._metrics.update(logits.softmax(-1), labels)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name, and keep the confusion matrix (true class, predicted class) in ``confusion``.

        Raises:
            UserError: the set has no labelled sample.
        """
        if self._metrics is None or self._loss.compute_count() == 0:
            raise UserError(f"the {self.name} set has no labelled sample")
        with warnings.catch_warnings():
            # AUROC warns of classes without examples; they are left out below.
            warnings.simplefilter("ignore", UserWarning)
            values: Mapping[str, Tensor] = self._metrics.compute()
        confusion = values["confusion"]
        self.confusion = confusion.cpu()
        result: dict[str, Tensor] = {"loss": self._loss.compute()}
        result |= {name: values[name].float() for name in ("accuracy", "mcc", "f1")}  # mcc is an integer at times
        present = confusion.sum(1)
        defined = (present > 0) & (present < present.sum())
        per_class = values["auroc"]
        if not defined.any():
            result["auroc"] = torch.full_like(result["loss"], math.nan)
        else:
            result["auroc"] = per_class[1] if self.num_classes == 2 else per_class[defined].mean()
        return result


def _collection(num_classes: int) -> MetricCollection:
    options: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(average="micro", **options),
            "mcc": MulticlassMatthewsCorrCoef(**options),
            "f1": MulticlassF1Score(average="macro", **options),
            "auroc": MulticlassAUROC(average="none", **options),
            "confusion": MulticlassConfusionMatrix(**options),
        },
        compute_groups=False,
    )


class MeanLoss(Metric):
    """The mean of losses that come in batches."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, losses: Tensor) -> None:
        self.total += losses.double().sum()
        self.count += losses.numel()

    def compute(self) -> Tensor:
        return (self.total / self.count).float()

    def compute_count(self) -> int:
        return int(self.count)
