"""Classification of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from ...core.errors import UserError
from ...core.training.finetuning import FinetuningConfig
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ...core.training.tasks import ClassificationTask
from .base import VisionTask
from .metrics import ImageMetrics
from .mixing import Mixing, MixingConfig

DEFAULT_MIXING = MixingConfig()


class ImageClassification(VisionTask, ClassificationTask):
    """Put images in classes, on an `ImageClassificationDataModule`.

    Measured: loss, accuracy (top 1), ``accuracy_top5``, ``calibration_error``, Matthews correlation, macro F1, AUROC.

    Args:
        label_smoothing: share of each target that is spread over all classes in training.
        mixing: mixup, CutMix and random erasing of training batches, on the model's device.
        model, options, pretrained, optimizer, schedule, finetuning: as for `VisionTask`.
    """

    def __init__(
        self,
        model: str = "vim_tiny_patch16_224",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        label_smoothing: float = 0.0,
        mixing: MixingConfig = DEFAULT_MIXING,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing}; expected 0 ≤ p < 1")
        self.label_smoothing = label_smoothing
        self.mixing = MixingConfig(**mixing) if isinstance(mixing, dict) else mixing
        self._mixing: Mixing | None = None

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the cross-entropy of a batch, mixed where ``mixing`` says so."""
        images, labels = self.normalised(batch["input_ids"]), batch["labels"]
        if not self.mixing.mixes and not self.mixing.erasing:
            return functional.cross_entropy(self.model(images).float(), labels, label_smoothing=self.label_smoothing)
        if self._mixing is None:
            classes = self.class_names()
            assert classes is not None  # the data has labels
            self._mixing = Mixing(self.mixing, len(classes), self.label_smoothing)
        images, targets = self._mixing(images, labels)
        return functional.cross_entropy(self.model(images).float(), targets)

    def start_evaluation(self, name: str) -> ImageMetrics:
        return ImageMetrics(name)

    def class_names(self) -> list[str] | None:
        """Return the names of the classes in the order of the logits."""
        names = None if self.card is None else self.card.class_names
        return None if names is None else list(names)

    def prediction_columns(self) -> list[str]:
        return ["name", "prediction", *(f"probability_{name}" for name in self.class_names() or [])]

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
        names = self.class_names() or [str(index) for index in range(prediction.shape[-1])]
        for name, row in zip(batch["name"], prediction.tolist(), strict=True):
            yield name, names[max(range(len(row)), key=row.__getitem__)], *(f"{value:.6f}" for value in row)
