"""Tasks with several targets for a sequence: any number of labels, or numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UserError
from .module import TrainingModule
from .target_metrics import MultiLabelMetrics, RegressionMetrics


class TargetTask(TrainingModule):
    """What both tasks share.

    A batch holds ``input_ids`` (batch, length), ``labels`` float32 (batch, targets), and optionally ``mask``. The model
    returns (batch, targets).
    """

    #: ``stage/metric`` to name of the target to value, of the latest evaluations.
    per_target: dict[str, dict[str, float]]
    #: What the columns of predictions begin with.
    column: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.per_target = {}

    def target_names(self) -> list[str] | None:
        """Return the names of the targets where the data module has ``class_names``."""
        names = getattr(self.trainer.datamodule, "class_names", None)  # type: ignore[attr-defined]
        return None if names is None else [str(name) for name in names]

    def outputs(self, batch: Mapping[str, Any]) -> Tensor:
        """Return what the model makes of a batch, float32."""
        return self(batch["input_ids"], mask=batch.get("mask")).float()

    def _finish_evaluations(self, stage: str) -> None:
        super()._finish_evaluations(stage)
        several = len(self._evaluations) > 1
        for evaluation in self._evaluations.values():
            prefix = f"{stage}/{evaluation.name}" if several else stage
            for metric, values in evaluation.per_target.items():
                names = self.target_names() or [str(index) for index in range(len(values))]
                self.per_target[f"{prefix}/{metric}"] = dict(zip(names, values.tolist(), strict=True))

    def prediction_columns(self) -> list[str]:
        """Return name, and one column for each target."""
        names = self.target_names()
        if names is None:
            raise UserError("the names of the targets are unknown; give data.class_names")
        return ["name", *(f"{self.column}_{name}" for name in names)]

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
        """Return one row for each sequence."""
        names = batch.get("name") or [""] * len(prediction)
        for name, row in zip(names, prediction.tolist(), strict=True):
            yield name, *(f"{value:.6g}" for value in row)


class MultiLabelTask(TargetTask):
    """Say of each label whether the sequence has it: binary cross-entropy, the mean over labels and samples.

    Labels are 0 or 1. Measured: see `MultiLabelMetrics`; its loss is without weights.
    """

    column = "probability"
    #: Weight of positives for each label in the training loss, (labels,), None for 1.
    pos_weight: Tensor | None = None

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        weight = None if self.pos_weight is None else self.pos_weight.to(self.device)
        return functional.binary_cross_entropy_with_logits(self.outputs(batch), _targets(batch), pos_weight=weight)

    def start_evaluation(self, name: str) -> MultiLabelMetrics:
        return MultiLabelMetrics(name)

    def update_evaluation(self, evaluation: MultiLabelMetrics, batch: Mapping[str, Any]) -> None:
        kept = _kept(batch)
        evaluation.update(self.outputs(batch)[kept], _targets(batch)[kept])

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the probability of each label, float32 (batch, labels)."""
        return self.outputs(batch).sigmoid()


class RegressionTask(TargetTask):
    """Predict numbers.

    ``loss_name`` ``"mse"``: outputs are values in the units of the data, the loss is the mean of
    ((output - target) / ``target_std``)². ``"poisson"``: outputs are logarithms of rates, the loss is
    exp(output) - target * output, the Poisson negative log-likelihood without its constant. Measured in the units of
    the data: see `RegressionMetrics`.
    """

    column = "predicted"
    loss_name: str = "mse"
    #: Standard deviation of each target in the training data, (targets,), None for 1.
    target_std: Tensor | None = None

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample and target, (batch, targets)."""
        if self.loss_name == "poisson":
            return outputs.exp() - targets * outputs
        scale = 1.0 if self.target_std is None else self.target_std.to(outputs.device)
        return ((outputs - targets) / scale) ** 2

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        return self.losses(self.outputs(batch), _targets(batch)).mean()

    def values(self, outputs: Tensor) -> Tensor:
        """Return predictions in the units of the data."""
        return outputs.exp() if self.loss_name == "poisson" else outputs

    def start_evaluation(self, name: str) -> RegressionMetrics:
        return RegressionMetrics(name).to(self.device)

    def update_evaluation(self, evaluation: RegressionMetrics, batch: Mapping[str, Any]) -> None:
        kept = _kept(batch)
        outputs, targets = self.outputs(batch)[kept], _targets(batch)[kept]
        evaluation.update(self.values(outputs), targets, self.losses(outputs, targets))

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the predicted values, float32 (batch, targets)."""
        return self.values(self.outputs(batch))


def _targets(batch: Mapping[str, Any]) -> Tensor:
    if "labels" not in batch:
        raise UserError("the evaluation set has no targets; to get predictions without targets, use the verb predict")
    return batch["labels"].float()


def _kept(batch: Mapping[str, Any]) -> Tensor:
    """Return the samples, by index, that are not there only to even out several processes."""
    device = batch["input_ids"].device
    padding = batch.get("padding")
    if padding is None:
        return torch.arange(len(batch["input_ids"]), device=device)
    return torch.nonzero(~padding.to(device)).squeeze(1)
