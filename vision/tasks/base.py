"""What the tasks of images have in common: the model is built for the data, and its card is kept with its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.model_place import known_options, model_place
from ...core.training.finetuning import FinetuningConfig
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE, TrainingModule
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ..card import VisionCard, read_card

#: What names of timm's models begin with in configurations.
TIMM_PREFIX = "timm/"


class VisionTask(TrainingModule):
    """Builds its model once the data is known.

    Args:
        model: name of a registered model (``longscan models --domain vision``), of an architecture (``Vim``), or
            ``timm/NAME`` for a model of timm.
        options: fields of its configuration to replace; of a model of timm its arguments there.
        pretrained: start from these weights instead of random ones: a registered name, a folder written by
            ``save_pretrained``, a checkpoint, or a hub repository; ``model`` is then ignored. Positions are resized
            to the size of the images, a head of other classes starts anew.
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
        self.card: VisionCard | None = None
        self._built = False
        self._shift: tuple[Tensor, Tensor] | None = None

    def configure_model(self) -> None:
        """Build or load the model; Lightning calls this after the data module's ``setup``."""
        if self._built:
            return
        fit, data = self.trainer.state.fn == "fit", self.trainer.datamodule  # type: ignore[attr-defined]
        found, stored = describe_data(data, complete=fit), self._stored_card()
        if stored is not None:
            check_alike(found, stored)
        self.card = found if stored is None else dataclasses.replace(stored, img_size=found.img_size)
        self.model = self.create(self.fitting_options())
        if fit:
            if self.pretrained is None and self.finetuning.lora is not None:
                raise UserError("finetuning.lora adapts a pretrained model; give model.pretrained")
            self.apply_finetuning(self.pretrained)
        self._built = True

    def fitting_options(self) -> dict[str, Any]:
        """Return fields of the model's configuration that follow from the data; those that it does not have are passed
        over."""
        assert self.card is not None
        options: dict[str, Any] = {"img_size": self.card.img_size, "in_chans": self.card.channels}
        if self.card.class_names is not None:
            names = tuple(self.card.class_names)
            options |= {"num_classes": len(names), "class_names": names}
        return options

    def _stored_card(self) -> VisionCard | None:
        """Return the card of the weights that are evaluated; None in training, where the data decides."""
        if self.trainer.state.fn == "fit":
            return None
        checkpoint = self.trainer.ckpt_path
        if checkpoint is not None:
            return read_card(Path(str(checkpoint)))
        return None if self.pretrained is None else read_card(model_place(self.pretrained))

    def create(self, fitting: Mapping[str, Any]) -> nn.Module:
        """Return the model with the ``fitting`` fields, its weights random or loaded.

        Raises:
            UserError: there is no such model, or its weights do not fit.
        """
        import longscan

        checkpoint, fit = self.trainer.ckpt_path, self.trainer.state.fn == "fit"
        if self.pretrained is None and checkpoint is None and not fit:
            raise UserError("no weights: give model.pretrained or --ckpt_path")
        if checkpoint is not None and not fit:
            # With its own classes and channels, at the size of the images.
            size = {"img_size": fitting["img_size"]} if "img_size" in _stored_config(checkpoint) else {}
            return longscan.from_pretrained(Path(checkpoint), **size).train(False)
        if self.pretrained is None:
            return build_model(self.model_name, fitting, self.options)
        original: Any = longscan.from_pretrained(self.pretrained, **self.options)
        fields = {field.name for field in dataclasses.fields(original.config)}
        wanted = {
            name: value
            for name, value in fitting.items()
            if name in fields and _plain(getattr(original.config, name)) != _plain(value)
        }
        if not fit:
            wanted = {name: value for name, value in wanted.items() if name == "img_size"}
        if wanted:
            original = longscan.from_pretrained(self.pretrained, **wanted, **self.options)
        return original.train(fit)

    def normalised(self, images: Tensor) -> Tensor:
        """Return uint8 images (batch, channels, height, width) as float32, less the mean and over the deviation of
        each channel."""
        assert self.card is not None
        if self._shift is None or self._shift[0].device != images.device:
            # Once: a copy to a GPU waits for all that it has still to do.
            values = torch.tensor([self.card.mean, self.card.std], device=images.device).view(2, -1, 1, 1)
            self._shift = (values[0] * 255, 1 / (values[1] * 255))
        return (images.float() - self._shift[0]) * self._shift[1]

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what the model makes of uint8 images (batch, channels, height, width)."""
        return self.model(self.normalised(input_ids))

    def model_card(self) -> dict[str, Any]:
        """Return what rebuilds the model, and the card of the data."""
        card = super().model_card()
        if self.card is not None:
            card["vision"] = self.card.to_dict()
        return card


def build_model(name: str, fitting: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    """Return a model with random weights: a registered one, an architecture, or ``timm/NAME``.

    Args:
        name: of the model.
        fitting: fields of its configuration that follow from the data, left out where it has none of that name.
        options: further ones, which come first.
    """
    import longscan

    if name.startswith(TIMM_PREFIX):
        own = {key: options[key] for key in ("drop_path_rate", "stem") if key in options}
        rest = {key: value for key, value in options.items() if key not in own}
        timm_name = name.removeprefix(TIMM_PREFIX)
        return longscan.create_model("TimmModel", timm_name=timm_name, options=rest, **fitting, **own)
    return longscan.create_model(name, **known_options(name, fitting) | dict(options))


def describe_data(data: Any, *, complete: bool = True) -> VisionCard:
    """Return the card of a data module of `longscan.vision.data`.

    Raises:
        UserError: something is wrong with the data; or its classes are unknown and ``complete``.
    """
    names: tuple[str, ...] | None = None
    if hasattr(type(data), "class_names"):
        try:
            names = tuple(data.class_names)
        except UserError:
            if complete or data.whole() is not None:
                raise
    return VisionCard(
        img_size=data.img_size,
        channels=data.channels,
        class_names=names,
        mean=data.mean,
        std=data.std,
        interpolation=data.interpolation,
        crop_pct=data.crop_pct,
    )


def check_alike(found: VisionCard, stored: VisionCard) -> None:
    """Refuse data that the weights cannot have been trained on.

    Raises:
        UserError: with the settings to change.
    """
    for name in ("channels", "mean", "std"):
        wanted, given = getattr(stored, name), getattr(found, name)
        if given != wanted:
            shown = list(wanted) if isinstance(wanted, tuple) else wanted
            raise UserError(f"the model was trained with data.{name} {shown}; set it, the data has {given}")
    if found.class_names is not None and stored.class_names is not None:
        known, other = list(stored.class_names), list(found.class_names)
        if len(known) != len(other):
            raise UserError(
                f"the model tells {len(known)} classes apart, the data has {len(other)}; to train a new head on them, "
                "fit with model.pretrained"
            )
        if known != other:
            raise UserError(f"the model tells {_listed(known)} apart, the data has the classes {_listed(other)}")


def _stored_config(checkpoint: Any) -> dict[str, Any]:
    from ...core.checkpoint_files import load_torch_file

    stored = load_torch_file(Path(str(checkpoint))).get("longscan", {}).get("model", {}).get("config") or {}
    return dict(stored.get("config", {}))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f", … ({len(names)})" if len(names) > 6 else "")
