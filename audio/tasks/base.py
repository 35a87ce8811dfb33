"""What the tasks of audio have in common: the model is built for the data, and its card is kept with its weights."""

from __future__ import annotations

import dataclasses
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
from ..card import AudioCard, Control, read_card
from ..quantization import Quantizer


class AudioTask(TrainingModule):
    """Builds its model once the data is known.

    Parameters of state spaces declare a learning rate of their own and no decay (``_optim``), which the optimiser's
    groups follow.

    Args:
        model: name of a registered model (``longscan models``), or of an architecture such as ``LanguageModel``.
        options: fields of its configuration to replace.
        pretrained: start from these weights instead of random ones: a registered name, a folder written by
            ``save_pretrained``, a training checkpoint, or a hub repository; ``model`` is then ignored.
        optimizer: optimiser and parameter groups.
        schedule: learning rate over the steps.
        finetuning: what of the model is frozen or trained more slowly.
    """

    #: Whether the model is evaluated on data of another rate than that of its training.
    any_rate = False

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
        self.card: AudioCard | None = None
        self._built = False

    def configure_model(self) -> None:
        """Build or load the model; Lightning calls this after the data module's ``setup``."""
        if self._built:
            return
        fit, data = self.trainer.state.fn == "fit", self.trainer.datamodule  # type: ignore[attr-defined]
        found, stored = describe_data(data, complete=fit), self._stored_card()
        if stored is not None:
            _check_alike(found, stored, any_rate=self.any_rate)
        self.card = found if stored is None else stored
        self.model = self._create(self.fitting_options())
        if self.trainer.state.fn == "fit":
            if self.pretrained is None and self.finetuning.lora is not None:
                raise UserError("finetuning.lora adapts a pretrained model; give model.pretrained")
            self.apply_finetuning(self.pretrained)
        self._built = True

    def fitting_options(self) -> dict[str, Any]:
        """Return fields of the model's configuration that follow from the data (or the data of the stored weights);
        those that it does not have are passed over."""
        assert self.card is not None
        card, features = self.card, self.card.features
        options: dict[str, Any] = {
            "sample_rate": round(card.model_rate),
            "in_channels": card.channels * (1 if features is None else features["mels"]),
        }
        if card.class_names is not None:
            options |= {"num_classes": len(card.class_names), "class_names": tuple(card.class_names)}
        if card.quantizer is not None:
            quantizer = Quantizer(**card.quantizer)
            options |= {"vocab_size": quantizer.levels, "law": quantizer.law, "range": quantizer.range}
        names = tuple(control.name for control in card.controls)
        return options | {"n_controls": len(names), "control_names": names or None}

    def _stored_card(self) -> AudioCard | None:
        """Return the card of the weights that are evaluated; None in training, where the data decides."""
        fit, checkpoint = self.trainer.state.fn == "fit", self.trainer.ckpt_path
        if fit:
            return None
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
        if fit:
            original: Any = longscan.from_pretrained(self.pretrained, **self.options)
            fields = {field.name for field in dataclasses.fields(original.config)}
            wanted = {
                name: value
                for name, value in _known(fitting, fields).items()
                if _plain(getattr(original.config, name)) != _plain(value)
            }
            return (
                longscan.from_pretrained(self.pretrained, **wanted, **self.options).train()
                if wanted
                else (original.train())
            )
        return longscan.from_pretrained(self.pretrained, **self.options)

    def model_card(self) -> dict[str, Any]:
        """Return what rebuilds the model, and the card of the data."""
        card = super().model_card()
        if self.card is not None:
            card["audio"] = self.card.to_dict()
        return card


def describe_data(data: Any, *, complete: bool = True) -> AudioCard:
    """Return the card of a data module of `longscan.audio.data`.

    Raises:
        UserError: something is wrong with the data; or its classes are unknown and ``complete``.
    """
    quantizer, features = getattr(data, "quantizer", None), getattr(data, "features", None)
    return AudioCard(
        sample_rate=data.sample_rate,
        decimation=getattr(data, "decimation", 1),
        channels=data.format.channels or 1,
        length=getattr(data, "length", None),
        quantizer=None if quantizer is None else dataclasses.asdict(quantizer),
        class_names=_class_names(data, complete),
        normalize=getattr(data, "normalize", "none"),
        padding=getattr(data, "padding", "end"),
        mask_padding=getattr(data, "mask_padding", True),
        features=None if features is None else dataclasses.asdict(features),
        controls=_controls(data),
    )


def _class_names(data: Any, complete: bool) -> tuple[str, ...] | None:
    if not getattr(data, "needs_labels", False):
        return None
    try:
        return tuple(data.class_names)
    except UserError:
        if complete:
            raise
        return None  # there are only recordings to predict


def _controls(data: Any) -> tuple[Control, ...]:
    ranges = getattr(data, "ranges", None)
    if ranges is not None:
        from ..data.compression import CONTROLS, LOGARITHMIC

        return tuple(
            Control(
                name=name,
                low=getattr(ranges, name)[0],
                high=getattr(ranges, name)[1],
                scale="logarithmic" if name in LOGARITHMIC else "linear",
            )
            for name in CONTROLS
        )
    spans = getattr(data, "control_ranges", {})
    return tuple(
        Control(name=name, low=float(spans.get(name, (0, 1))[0]), high=float(spans.get(name, (0, 1))[1]))
        for name in getattr(data, "controls", ())
    )


def _known(options: Mapping[str, Any], fields: set[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in fields}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_alike(found: AudioCard, stored: AudioCard, *, any_rate: bool) -> None:
    """Refuse data that the weights cannot have been trained on.

    Raises:
        UserError: with the settings to change.
    """
    if found.model_rate != stored.model_rate and not any_rate:
        raise UserError(
            f"the model was trained at {stored.model_rate:g} Hz, the data has {found.model_rate:g} Hz; set "
            f"data.sample_rate {stored.sample_rate} and data.resample true"
        )
    for name in ("quantizer", "features", "channels", "normalize"):
        wanted = getattr(stored, name)
        if getattr(found, name) != wanted:
            raise UserError(f"the model was trained with data.{name} {wanted}, the data has {getattr(found, name)}")
    names = [[control.name for control in card.controls] for card in (stored, found)]
    if names[0] != names[1]:
        raise UserError(
            f"the model was trained with the controls {', '.join(names[0]) or 'none'}, the data has "
            f"{', '.join(names[1]) or 'none'}"
        )
    for control, other in zip(stored.controls, found.controls, strict=True):
        if control != other:
            raise UserError(
                f"control {control.name}: the model was trained with {control.low:g} … {control.high:g} "
                f"({control.scale}), the data has {other.low:g} … {other.high:g} ({other.scale}); set the same range"
            )
    if found.class_names is not None and stored.class_names is not None:
        known, given = list(stored.class_names), list(found.class_names)
        if known != given:
            raise UserError(f"the model tells {', '.join(known)} apart, the data has the classes {', '.join(given)}")
