"""What the tasks of time series share: the model is built for the data, and its card is kept with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ...core.errors import UserError
from ...core.model_place import known_options, model_place
from ...core.training.finetuning import FinetuningConfig
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE, TrainingModule
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ..card import TimeSeriesCard, read_card


class TimeSeriesTask(TrainingModule):
    """Builds its model once the data is known.

    Args:
        model: name of a registered model (``longscan models``), or of an architecture such as ``MambaForecaster``.
        options: fields of its configuration to replace.
        pretrained: start from these weights instead of random ones: a registered name, a folder written by
            ``save_pretrained``, or a training checkpoint; ``model`` is then ignored.
        optimizer: optimiser and parameter groups.
        schedule: learning rate over the steps.
        finetuning: what of the model is frozen or trained more slowly.
    """

    def __init__(
        self,
        model: str,
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(nn.Identity(), optimizer, schedule, finetuning)
        self.model_name, self.options, self.pretrained = model, dict(options or {}), pretrained
        #: What the data is; of the checkpoint or the pretrained model where one is evaluated.
        self.card: TimeSeriesCard | None = None
        self._built = False

    # What a task says

    def describe(self, data: Any) -> TimeSeriesCard:
        """Return the card of a data module."""
        raise NotImplementedError

    def fitting_options(self) -> dict[str, Any]:
        """Return fields of the model's configuration that follow from the data; those that it does not have are passed
        over."""
        raise NotImplementedError

    def check_alike(self, found: TimeSeriesCard, stored: TimeSeriesCard) -> None:
        """Refuse data that the weights cannot have been trained on.

        Raises:
            UserError: with the settings to change.
        """

    def prepare(self, model: Any) -> None:
        """Give a new model what it learns of the training rows before training, such as scales."""

    # What all share

    def configure_model(self) -> None:
        """Build or load the model; Lightning calls this after the data module's ``setup``."""
        if self._built:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        fit = self.trainer.state.fn == "fit"
        found, stored = self.describe(data), self._stored_card()
        if stored is not None:
            self.check_alike(found, stored)
        self.card = found if stored is None else stored
        self.model = self._create(self.fitting_options())
        if fit:
            if self.pretrained is None and self.finetuning.lora is not None:
                raise UserError("finetuning.lora adapts a pretrained model; give model.pretrained")
            self.prepare(self.model)
            self.apply_finetuning(self.pretrained)
        self._built = True

    def _stored_card(self) -> TimeSeriesCard | None:
        """Return the card of the weights that are evaluated; None in training, where the data decides."""
        if self.trainer.state.fn == "fit":
            return None
        checkpoint = self.trainer.ckpt_path
        if checkpoint is not None:
            return read_card(Path(str(checkpoint)))
        return None if self.pretrained is None else read_card(model_place(self.pretrained))

    def _create(self, fitting: Mapping[str, Any]) -> nn.Module:
        import longscan

        checkpoint, fit = self.trainer.ckpt_path, self.trainer.state.fn == "fit"
        if self.pretrained is None:
            if not fit and checkpoint is None:
                raise UserError("no weights: give model.pretrained or --ckpt_path")
            return longscan.create_model(self.model_name, **known_options(self.model_name, fitting) | self.options)
        if checkpoint is not None:
            return longscan.from_pretrained(Path(checkpoint), **self.options).train(fit)
        original: Any = longscan.from_pretrained(self.pretrained, **self.options)
        if not fit:
            return original
        for name in ("past_covariates", "future_covariates", "static_covariates"):
            if fitting.get(name, 0) != getattr(original.config, name, 0):
                raise UserError(
                    f"{self.pretrained}: reads {getattr(original.config, name, 0)} {name}, the data has "
                    f"{fitting.get(name, 0)}; leave them out or train a new model"
                )
        return original.train()

    def model_card(self) -> dict[str, Any]:
        """Return what rebuilds the model, and the card of the data."""
        card = super().model_card()
        if self.card is not None:
            card["timeseries"] = self.card.to_dict()
        return card
