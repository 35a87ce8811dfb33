"""Metrics of several labels, or of numbers, over a whole evaluation set and all processes."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelAUROC, MultilabelAveragePrecision, MultilabelF1Score
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef
from torchmetrics.utilities import dim_zero_cat

from ..errors import UserError
from .metrics import MeanLoss


class MultiLabelMetrics:
    """Loss, AUROC, average precision and F1 of labels that do not exclude each other.

    A label that no sample of the set has, or that all have, has no AUROC: it is left out of the means and counted.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        #: metric to one value for each label, NaN where it is left out; after ``compute``.
        self.per_target: dict[str, Tensor] = {}
        self._metrics: MetricCollection | None = None
        self._loss = MeanLoss()
        self._counts = _Counts()

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: ``logits`` and ``labels`` (0 or 1), both (batch, labels)."""
        logits = logits.float()
        if self._metrics is None:
            options: dict[str, Any] = {"num_labels": logits.shape[-1], "average": "none", "validate_args": False}
            self._metrics = MetricCollection(
                {
                    "auroc": MultilabelAUROC(**options),
                    "average_precision": MultilabelAveragePrecision(**options),
                    "f1": MultilabelF1Score(**options),
                },
                # The first two keep the same scores, once.
                compute_groups=[["auroc", "average_precision"], ["f1"]],
            ).to(logits.device)
            self._loss, self._counts = self._loss.to(logits.device), self._counts.to(logits.device)
        if not len(labels):
            return
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        self._loss.update(loss)
        self._counts.update(labels)
        self._metrics.update(logits.sigmoid(), labels.long())

    def compute(self) -> dict[str, Tensor]:
        """Return loss (binary cross-entropy), auroc, auroc_median, average_precision and f1 (means over labels, F1 at
        probability 0.5), and labels_left_out; keep ``per_target``.

        Raises:
            UserError: the set has no sample.
        """
        if self._metrics is None or self._loss.compute_count() == 0:
            raise UserError(f"the {self.name} set has no labelled sample")
        positives, samples = self._counts.compute()
        defined = (positives > 0) & (positives < samples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the labels that are left out
            values = self._metrics.compute()
        nan = torch.tensor(math.nan, device=defined.device)
        self.per_target = {name: torch.where(defined, value.float(), nan).cpu() for name, value in values.items()}
        kept = {name: value[defined].float() for name, value in values.items()}
        result = {"loss": self._loss.compute()}
        result |= {name: value.mean() if len(value) else nan for name, value in kept.items()}
        # torch's own median takes the lower of two.
        result["auroc_median"] = kept["auroc"].quantile(0.5) if len(kept["auroc"]) else nan
        result["labels_left_out"] = (~defined).sum().float()
        return result


class RegressionMetrics(Metric):
    """Mean squared and absolute error, R², Pearson and Spearman correlation of each target, and their means.

    R² and the correlations of a target that does not vary are undefined: NaN, left out of the means.
    """

    full_state_update = False
    predictions: list[Tensor]
    observations: list[Tensor]
    loss_sum: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.per_target: dict[str, Tensor] = {}
        self.add_state("predictions", [], dist_reduce_fx="cat")
        self.add_state("observations", [], dist_reduce_fx="cat")
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor, losses: Tensor) -> None:
        """Add a batch: ``predictions``, ``targets`` and ``losses``, all (batch, targets), the first two in the units of
        the data."""
        self.predictions.append(predictions.float())
        self.observations.append(targets.float())
        self.loss_sum += losses.double().sum()

    def compute(self) -> dict[str, Tensor]:
        """Return loss, mse, mae, r2, pearson and spearman, means over targets; keep ``per_target``.

        Raises:
            UserError: the set has no sample.
        """
        if not len(self.predictions) or not sum(map(len, self.predictions)):
            raise UserError(f"the {self.name} set has no sample with targets")
        found = dim_zero_cat(self.predictions).double()
        wanted = dim_zero_cat(self.observations).double()
        error, spread = found - wanted, ((wanted - wanted.mean(0)) ** 2).sum(0)
        values = {"mse": (error**2).mean(0), "mae": error.abs().mean(0), "r2": 1 - (error**2).sum(0) / spread}
        varies = (wanted.amax(0) > wanted.amin(0)) & (found.amax(0) > found.amin(0))
        values["r2"] = values["r2"].where(wanted.amax(0) > wanted.amin(0), math.nan)
        for name, correlation in (("pearson", pearson_corrcoef), ("spearman", spearman_corrcoef)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of what does not vary
                each = [correlation(found[:, i], wanted[:, i]) for i in range(found.shape[1])]
            values[name] = torch.stack(each).where(varies, math.nan)
        self.per_target = {name: value.float().cpu() for name, value in values.items()}
        loss = (self.loss_sum / found.numel()).float()
        return {"loss": loss, **{name: value.nanmean().float() for name, value in values.items()}}


class _Counts(Metric):
    """How many samples have each label, and how many there are."""

    full_state_update = False
    positives: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("positives", torch.zeros(1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor) -> None:
        self.positives = self.positives + labels.long().sum(0)
        self.samples += len(labels)

    def compute(self) -> tuple[Tensor, Tensor]:
        return self.positives, self.samples
