"""Segmentation: the class of every pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix

from ...core.errors import UserError
from ...core.training.finetuning import FinetuningConfig
from ...core.training.metrics import IGNORED, MeanLoss
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ...core.training.tasks import _labels
from .base import VisionTask


class SegmentationMetrics:
    """Loss, accuracy of pixels, and ``miou``, the mean over classes of the intersection of truth and prediction over
    their union, of the whole set; classes that neither has are left out."""

    def __init__(self, name: str, num_classes: int, device: torch.device) -> None:
        self.name, self.loss = name, MeanLoss().to(device)
        self.matrix = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED, validate_args=False).to(device)
        self.confusion: Tensor | None = None

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: ``logits`` (batch, classes, height, width), ``labels`` int64 (batch, height, width)."""
        losses = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        self.loss.update(losses[labels != IGNORED])
        self.matrix.update(logits.argmax(1), labels)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name.

        Raises:
            UserError: no pixel of the set has a known class.
        """
        if self.loss.compute_count() == 0:
            raise UserError(f"the {self.name} set has no pixel of a known class")
        matrix = self.matrix.compute().double()
        self.confusion = matrix.long().cpu()
        right = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - right
        present = union > 0
        return {
            "loss": self.loss.compute(),
            "accuracy": (right.sum() / matrix.sum()).float(),
            "miou": (right[present] / union[present]).mean().float(),
        }


class ImageSegmentation(VisionTask):
    """Put every pixel in a class, on a `SegmentationDataModule`: a backbone with a light head (`Segmenter`).

    Measured: ``miou``, accuracy of pixels, loss. ``predict`` writes the share of each class in each image.

    Args:
        model: the backbone, a registered model or architecture.
        options: fields of its configuration to replace.
        head: fields of the head: ``stages`` (feature maps it sees) and ``width``.
        pretrained: start the backbone, or a whole segmenter, from these weights.
        optimizer, schedule, finetuning: as for `VisionTask`.
    """

    #: (stage, name of the set) -> confusion matrix of pixels (true class, predicted class).
    confusion: dict[tuple[str, str], Tensor]

    def __init__(
        self,
        model: str = "vim_tiny_patch16_224",
        options: dict[str, Any] | None = None,
        head: dict[str, int] | None = None,
        pretrained: str | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)
        self.head, self.confusion = dict(head or {}), {}

    def create(self, fitting: Mapping[str, Any]) -> nn.Module:
        """Return a segmenter, its backbone's weights random or loaded."""
        import longscan

        fit = self.trainer.state.fn == "fit"
        if not fit:
            return super().create(fitting)
        if self.pretrained is None:
            return longscan.create_model(
                "Segmenter", backbone=self.model_name, backbone_options=self.options, **fitting, **self.head
            )
        fields = {"img_size": fitting["img_size"], "in_chans": fitting["in_chans"]}
        source: Any = longscan.from_pretrained(self.pretrained, **fields, **self.options)
        if type(source).__name__ == "Segmenter":
            return longscan.from_pretrained(self.pretrained, **fitting).train()
        from dataclasses import asdict

        options = {name: value for name, value in asdict(source.config).items() if name not in (*fitting, "head")}
        segmenter: Any = longscan.create_model(
            "Segmenter", backbone=type(source).__name__, backbone_options=options, **fitting, **self.head
        )
        source.reset_classifier(0)
        segmenter.backbone.load_state_dict(source.state_dict())
        return segmenter

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the cross-entropy of all pixels of known class."""
        logits, labels = self(batch["input_ids"]).float(), batch["labels"]
        total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        return total / (labels != IGNORED).sum().clamp(min=1)

    def start_evaluation(self, name: str) -> SegmentationMetrics:
        names = self.class_names()
        assert names is not None  # the data has masks
        return SegmentationMetrics(name, len(names), self.device)

    def update_evaluation(self, evaluation: SegmentationMetrics, batch: Mapping[str, Any]) -> None:
        evaluation.update(self(batch["input_ids"]).float(), _labels(batch))

    def _finish_evaluations(self, stage: str) -> None:
        super()._finish_evaluations(stage)
        for evaluation in self._evaluations.values():
            if evaluation.confusion is not None:
                self.confusion[stage, evaluation.name] = evaluation.confusion

    def class_names(self) -> list[str] | None:
        """Return the names of the classes in the order of the logits."""
        names = None if self.card is None else self.card.class_names
        return None if names is None else list(names)

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the share of the pixels of each image that each class has, (batch, classes) float32."""
        logits = self(batch["input_ids"])
        found = logits.argmax(1).flatten(1)
        return functional.one_hot(found, logits.shape[1]).float().mean(1)

    def prediction_columns(self) -> list[str]:
        return ["name", *(f"share_{name}" for name in self.class_names() or [])]

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
        for name, row in zip(batch["name"], prediction.tolist(), strict=True):
            yield name, *(f"{value:.6f}" for value in row)
