"""Tasks that several domains share: language modelling and sequence classification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UserError
from .metrics import IGNORED, ClassificationMetrics, TokenMetrics
from .module import TrainingModule


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of logits (batch, length, vocabulary), mean over the labels (batch, length) that are not
    -100; 0 where all are: 0/0 would end a training in NaN."""
    total = functional.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (labels != IGNORED).sum().clamp(min=1)


class LanguageModelTask(TrainingModule):
    """Predict tokens: the next ones, or those that were masked; the data module makes the targets.

    A batch holds ``input_ids`` (batch, length), ``labels`` (batch, length) with -100 where nothing is to be predicted,
    and optionally ``mask`` (batch, length). The model returns logits (batch, length, vocabulary). Measured over all
    tokens of a set: loss in nats, perplexity, bits per token, accuracy.
    """

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        return token_loss(self(batch["input_ids"], mask=batch.get("mask")), batch["labels"])

    def start_evaluation(self, name: str) -> TokenMetrics:
        return TokenMetrics(name).to(self.device)

    def update_evaluation(self, evaluation: TokenMetrics, batch: Mapping[str, Any]) -> None:
        evaluation.update(self(batch["input_ids"], mask=batch.get("mask")), _labels(batch))


class ClassificationTask(TrainingModule):
    """Put each sequence in one class.

    A batch holds ``input_ids`` (batch, length), ``labels`` int64 (batch,), -100 where unknown, and optionally
    ``mask``. The model returns logits (batch, classes). Measured over a whole set: loss, accuracy, Matthews
    correlation (``mcc``), macro F1 (``f1``), AUROC; the confusion matrices stay in :attr:`confusion`.
    """

    #: (stage, name of the set) -> confusion matrix (true class, predicted class) of its latest evaluation.
    confusion: dict[tuple[str, str], Tensor]
    #: Share of the target that is spread over all classes in training (Szegedy et al. 2016, arXiv:1512.00567).
    label_smoothing: float = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.confusion = {}

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        return self.class_loss(self(batch["input_ids"], mask=batch.get("mask")), batch["labels"])

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy of logits (batch, classes), mean over known labels (batch,)."""
        total = functional.cross_entropy(
            logits.float(), labels, ignore_index=IGNORED, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / (labels != IGNORED).sum().clamp(min=1)

    def start_evaluation(self, name: str) -> ClassificationMetrics:
        return ClassificationMetrics(name)

    def update_evaluation(self, evaluation: ClassificationMetrics, batch: Mapping[str, Any]) -> None:
        evaluation.update(self(batch["input_ids"], mask=batch.get("mask")), _labels(batch))

    def _finish_evaluations(self, stage: str) -> None:
        super()._finish_evaluations(stage)
        for evaluation in self._evaluations.values():
            self.confusion[stage, evaluation.name] = evaluation.confusion

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return class probabilities (batch, classes), float32."""
        return self(batch["input_ids"], mask=batch.get("mask")).float().softmax(-1)

    def class_names(self) -> list[str] | None:
        """Return the names of the classes where the data module has ``class_names``."""
        names = getattr(self.trainer.datamodule, "class_names", None)  # type: ignore[attr-defined]
        return None if names is None else [str(name) for name in names]

    def prediction_columns(self) -> list[str]:
        return ["name", "prediction", "probability"]

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
        names = batch.get("name")
        classes = self.class_names()
        best = prediction.max(-1)
        for row, (label, probability) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
            name = "" if names is None else names[row]
            yield name, classes[label] if classes else label, f"{probability:.6f}"


def _labels(batch: Mapping[str, Any]) -> Tensor:
    """Return the labels, with -100 for samples that are there only to even out several processes."""
    if "labels" not in batch:
        raise UserError("the evaluation set has no labels; to get predictions without labels, use the verb predict")
    labels = batch["labels"]
    padding = batch.get("padding")
    if padding is None:
        return labels
    keep = ~padding.to(labels.device)
    return torch.where(keep.view(-1, *[1] * (labels.dim() - 1)), labels, IGNORED)
