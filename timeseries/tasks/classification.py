"""Classification of whole series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.training.metrics import ClassificationMetrics
from ...core.training.tasks import ClassificationTask
from ..data.classification import SeriesClassificationDataModule
from .base import TimeSeriesTask


class BalancedMetrics(ClassificationMetrics):
    """Those of classification, and ``balanced_accuracy``: the mean over classes of the share that is found."""

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name.

        Raises:
            UserError: the set has no labelled sample.
        """
        result = super().compute()
        assert self.confusion is not None
        return result | {"balanced_accuracy": balanced_accuracy(self.confusion).to(result["loss"])}


def balanced_accuracy(confusion: Tensor) -> Tensor:
    """Return the mean over the classes that occur of the share that is found, of a matrix (true, predicted) class."""
    count = confusion.sum(1)
    found = confusion.diagonal()[count > 0].double() / count[count > 0]
    return found.mean().float()


class SeriesClassification(TimeSeriesTask, ClassificationTask):
    """Put series in classes, on a `SeriesClassificationDataModule`.

    Mean and deviation of the series that are trained on are stored in the model, with the names of the classes.
    Measured: loss, ``accuracy``, ``balanced_accuracy``, macro ``f1``, ``mcc``, ``auroc``. Of training without
    validation series the last weights are kept; nothing is chosen on test series.

    Args:
        label_smoothing: share of each target that is spread over all classes in training.
        model, options, pretrained, optimizer, schedule, finetuning: as for `TimeSeriesTask`.
    """

    def __init__(
        self,
        model: str = "series_classifier",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        label_smoothing: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(model, options, pretrained, **training)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing={label_smoothing:g} must be at least 0 and below 1")
        self.label_smoothing = label_smoothing

    def configure_model(self) -> None:
        """Build or load the model; Lightning calls this after the data module's ``setup``.

        Raises:
            UserError: another data module; weights of other classes or channels; a model that is no classifier or is
                not trained by steps.
        """
        if self._built:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, SeriesClassificationDataModule):
            raise UserError(
                "data.class_path: SeriesClassification needs a SeriesClassificationDataModule, not "
                f"{type(data).__name__}"
            )
        names = tuple(data.class_names)
        fitting = {"variates": data.channels, "num_classes": len(names), "class_names": names}
        model: Any = self.create(fitting)
        if getattr(model.config, "class_names", None) is None:
            raise UserError(f"{type(model).__name__} is no classifier of series; choose series_classifier")
        if model.config.variates != data.channels or tuple(model.config.class_names) != names:
            raise UserError(
                f"{data.data.source}: has {data.channels} channels and the classes {', '.join(names)}; the model was "
                f"trained on {model.config.variates} and {', '.join(model.config.class_names)}"
            )
        self.model = model
        if self.trainer.state.fn == "fit":
            if not hasattr(model, "fit_scaling"):
                raise UserError(
                    f"{self.model_name}: has a closed form and no steps of training; use `longscan timeseries classify "
                    "--train`"
                )
            if self.pretrained is None:
                model.fit_scaling(torch.from_numpy(data.training_rows()))
            self.apply_finetuning(self.pretrained)
        self._built = True

    def start_evaluation(self, name: str) -> BalancedMetrics:
        return BalancedMetrics(name)

    def class_names(self) -> list[str] | None:
        """Return the names of the classes in the order of the logits."""
        model: Any = self.model
        return [str(name) for name in model.config.class_names]

    def prediction_columns(self) -> list[str]:
        return ["series", "prediction", *(f"probability_{name}" for name in self.class_names() or [])]

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[list[Sequence[Any]]]:
        """Return a list of one row for each series, as `WindowTable` takes them."""
        names = self.class_names() or []
        for name, row in zip(batch["name"], prediction.tolist(), strict=True):
            yield [(name, names[max(range(len(row)), key=row.__getitem__)], *(f"{value:.6f}" for value in row))]
