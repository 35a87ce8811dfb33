"""Classification of recordings, at the rate of training and at others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ...core.errors import UserError
from ...core.training.finetuning import FinetuningConfig
from ...core.training.metrics import ClassificationMetrics
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ...core.training.tasks import ClassificationTask, _labels
from ..resampling import at_a_fraction
from .base import AudioTask


class RatedMetrics(ClassificationMetrics):
    """Metrics of one set at the model's own rate, and at others as ``accuracy_decimated_2`` and so on.

    Args:
        name: of the set.
        others: endings of those metrics.
    """

    def __init__(self, name: str, others: Iterable[str] = ()) -> None:
        super().__init__(name)
        self.others = {ending: ClassificationMetrics(name) for ending in others}

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name.

        Raises:
            UserError: the set has no labelled sample.
        """
        result = super().compute()
        for ending, metrics in self.others.items():
            found = metrics.compute()
            result |= {f"{name}_{ending}": found[name] for name in ("loss", "accuracy")}
        return result


class AudioClassification(AudioTask, ClassificationTask):
    """Put recordings in classes, on an `AudioClassificationDataModule`.

    In evaluation the model runs with ``rate`` the ratio of the rate it was trained on to that of the data
    (``data.sample_rate / data.decimation``), so that a state space model hears the same seconds.

    Args:
        label_smoothing: share of each target that is spread over all classes in training.
        decimations: in validation and test also measure with only every so-many-th sample, and ``rate`` to match
            (metrics ``accuracy_decimated_2`` and so on), without a filter, as the published zero-shot tests do.
        resamplings: the same with the filter of a recorder at that rate (``accuracy_resampled_2`` and so on).
        model, options, pretrained, optimizer, schedule, finetuning: as for `AudioTask`.
    """

    def __init__(
        self,
        model: str = "s4_classifier",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        label_smoothing: float = 0.0,
        decimations: list[int] | None = None,
        resamplings: list[int] | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing}; expected 0 ≤ p < 1")
        self.label_smoothing = label_smoothing
        self.decimations, self.resamplings = list(decimations or []), list(resamplings or [])
        for option in ("decimations", "resamplings"):
            if any(factor < 2 for factor in getattr(self, option)):
                raise UserError(f"{option} is {getattr(self, option)}; each must be at least 2")

    any_rate = True

    @property
    def rate(self) -> float:
        """Rate of training over that of the data at hand."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert self.card is not None
        return self.card.model_rate * data.decimation / data.sample_rate

    def forward(self, input_ids: Tensor, mask: Tensor | None = None, rate: float | None = None) -> Tensor:
        """Return logits (batch, classes) of samples (batch, frames, channels)."""
        rate = self.rate if rate is None else rate
        return self.model(input_ids, mask=mask) if rate == 1 else self.model(input_ids, mask=mask, rate=rate)

    def start_evaluation(self, name: str) -> RatedMetrics:
        others = [f"decimated_{factor}" for factor in self.decimations]
        others += [f"resampled_{factor}" for factor in self.resamplings]
        if others and self.card is not None and self.card.features is not None:
            raise UserError(
                "decimations and resamplings are of samples, but the model reads mel features; leave them away"
            )
        return RatedMetrics(name, others)

    def update_evaluation(self, evaluation: Any, batch: Mapping[str, Any]) -> None:
        super().update_evaluation(evaluation, batch)
        mask = batch.get("mask")
        whole = batch["input_ids"]
        for kind, factors in (("decimated", self.decimations), ("resampled", self.resamplings)):
            for factor in factors:
                samples = whole[:, ::factor] if kind == "decimated" else at_a_fraction(whole, factor)
                kept = None if mask is None else mask[:, ::factor]
                logits = self(samples, kept, self.rate * factor)
                evaluation.others[f"{kind}_{factor}"].update(logits, _labels(batch))

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
