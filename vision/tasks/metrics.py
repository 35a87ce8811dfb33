"""Metrics of image classification."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from ...core.training.metrics import IGNORED, ClassificationMetrics

#: Bins of confidence of the calibration error (Guo et al. 2017, arXiv:1706.04599).
BINS = 15


class ImageMetrics(ClassificationMetrics):
    """Those of `ClassificationMetrics`, with ``accuracy_top5`` (where there are more than five classes) and
    ``calibration_error``: the mean difference of confidence and accuracy over 15 bins of confidence."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._calibration: Any = None
        self._top5: Any = None

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: ``logits`` (batch, classes), ``labels`` int64 (batch,), -100 ignored."""
        super().update(logits, labels)
        assert self.num_classes is not None
        kept = labels != IGNORED
        logits, labels = logits[kept].float(), labels[kept]
        if self._calibration is None:
            self._calibration = MulticlassCalibrationError(self.num_classes, n_bins=BINS, validate_args=False)
            self._calibration = self._calibration.to(logits.device)
            if self.num_classes > 5:
                top5 = MulticlassAccuracy(self.num_classes, top_k=5, average="micro", validate_args=False)
                self._top5 = top5.to(logits.device)
        if not len(labels):
            return
        self._calibration.update(logits.softmax(-1), labels)
        if self._top5 is not None:
            self._top5.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name.

        Raises:
            UserError: the set has no labelled sample.
        """
        result = super().compute()
        if self._top5 is not None:
            result["accuracy_top5"] = self._top5.compute().float()
        result["calibration_error"] = self._calibration.compute().float()
        return result
