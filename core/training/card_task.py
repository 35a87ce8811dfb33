"""Tasks whose model is built once the data is known, and whose card of the data is kept with the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import nn

from ..data_card import DataCard
from ..errors import UserError
from ..model_place import known_options, model_place
from .late_model_task import LateModelTask

Card = TypeVar("Card", bound=DataCard)


class CardTask(LateModelTask, Generic[Card]):
    """Builds its model when the data is set up: with what the data says in training, with what the weights were
    trained on in evaluation.

    A domain says what its card is (``card_type``), how data is described (:meth:`describe`) and what of a model's
    configuration follows from it (:meth:`fitting_options`).

    Args:
        model, options, pretrained, optimizer, schedule, finetuning: as for `LateModelTask`.
    """

    card_type: ClassVar[type[DataCard]]
    #: Fields of the configuration that follow the data in evaluation too.
    evaluation_fields: ClassVar[tuple[str, ...]] = ()

    #: What the data is; of the checkpoint or the pretrained model where one is evaluated.
    card: Card | None = None

    # What a domain or a task says

    def describe(self, data: Any, *, complete: bool = True) -> Card:
        """Return the card of a data module; without ``complete`` its classes may be unknown.

        Raises:
            UserError: something is wrong with the data.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement describe(data, complete=…)")

    def fitting_options(self) -> dict[str, Any]:
        """Return fields of the model's configuration that follow from the card; those that it does not have are passed
        over."""
        raise NotImplementedError(f"{type(self).__name__} must implement fitting_options()")

    def check_alike(self, found: Card, stored: Card) -> None:
        """Refuse data that the weights cannot have been trained on.

        Raises:
            UserError: with the settings to change.
        """

    def evaluated_card(self, found: Card, stored: Card) -> Card:
        """Return the card of weights with the card ``stored`` on data with the card ``found``."""
        return stored

    def prepare(self, model: Any) -> None:
        """Give a new model what it learns of the data before training, such as scales."""

    def new_model(self, fitting: Mapping[str, Any]) -> nn.Module:
        """Return the model with random weights."""
        import longscan

        return longscan.create_model(self.model_name, **known_options(self.model_name, fitting) | self.options)

    def restored_model(self, checkpoint: Path, fitting: Mapping[str, Any]) -> nn.Module:
        """Return the model of a training checkpoint."""
        import longscan

        return longscan.from_pretrained(checkpoint, **self.options)

    def changed_fields(self, config: Any, fitting: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a pretrained model's configuration has to change for the data to fit."""
        fields = {field.name for field in dataclasses.fields(config)}
        return {
            name: value
            for name, value in fitting.items()
            if name in fields and _plain(getattr(config, name)) != _plain(value)
        }

    # What all share

    def configure_model(self) -> None:
        """Build or load the model; Lightning calls this after the data module's ``setup``.

        Raises:
            UserError: there is no such model, its weights do not fit, or the data is not what they were trained on.
        """
        if self._built:
            return
        fit, data = self.trainer.state.fn == "fit", self.trainer.datamodule  # type: ignore[attr-defined]
        found, stored = self.describe(data, complete=fit), self._stored_card()
        if stored is not None:
            self.check_alike(found, stored)
        self.card = found if stored is None else self.evaluated_card(found, stored)
        self.model = self.create(self.fitting_options())
        if fit:
            self.check_adapters()
            self.prepare(self.model)
            self.apply_finetuning(self.pretrained)
        self._built = True

    def create(self, fitting: Mapping[str, Any]) -> nn.Module:
        """Return the model with the ``fitting`` fields, its weights random or loaded.

        Raises:
            UserError: there is no such model, or its weights do not fit.
        """
        import longscan

        checkpoint, fit = self.trainer.ckpt_path, self.trainer.state.fn == "fit"
        if checkpoint is not None and (self.pretrained is not None or not fit):
            # The pretrained model may be gone by now; what its configuration gave is in the checkpoint.
            return self.restored_model(Path(str(checkpoint)), fitting).train(fit)
        if self.pretrained is None:
            if not fit:
                raise UserError("no weights: give model.pretrained or --ckpt_path")
            return self.new_model(fitting)
        model: Any = longscan.from_pretrained(self.pretrained, **self.options)
        changed = self.changed_fields(model.config, fitting if fit else self._evaluation_part(fitting))
        if changed:
            model = longscan.from_pretrained(self.pretrained, **changed, **self.options)
        return model.train(fit)

    def model_card(self) -> dict[str, Any]:
        """Return what rebuilds the model, and the card of the data."""
        card = super().model_card()
        if self.card is not None:
            card[self.card_type.domain] = self.card.to_dict()
        return card

    def _evaluation_part(self, fitting: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fitting.items() if name in self.evaluation_fields}

    def _stored_card(self) -> Card | None:
        """Return the card of the weights that are evaluated; None in training, where the data decides."""
        if self.trainer.state.fn == "fit":
            return None
        checkpoint = self.trainer.ckpt_path
        if checkpoint is not None:
            return self.card_type.read(Path(str(checkpoint)))  # type: ignore[return-value]
        return None if self.pretrained is None else self.card_type.read(model_place(self.pretrained))  # type: ignore[return-value]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
