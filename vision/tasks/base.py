"""What the tasks of images have in common: the model is built for the data, and its card is kept with its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.model_place import known_options
from ...core.training.card_task import CardTask
from ..card import VisionCard

#: What names of timm's models begin with in configurations.
TIMM_PREFIX = "timm/"


class VisionTask(CardTask[VisionCard]):
    """A task of images.

    Args:
        model: name of a registered model (``longscan models --domain vision``), of an architecture (``Vim``), or
            ``timm/NAME`` for a model of timm.
        options: fields of its configuration to replace; of a model of timm its arguments there.
        pretrained, optimizer, schedule, finetuning: as for `CardTask`. Positions are resized to the size of the
            images, a head of other classes starts anew.
    """

    card_type = VisionCard
    evaluation_fields = ("img_size",)
    _shift: tuple[Tensor, Tensor] | None = None

    def describe(self, data: Any, *, complete: bool = True) -> VisionCard:
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

    def check_alike(self, found: VisionCard, stored: VisionCard) -> None:
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
                    f"the model tells {len(known)} classes apart, the data has {len(other)}; to train a new head on "
                    "them, fit with model.pretrained"
                )
            if known != other:
                raise UserError(f"the model tells {_listed(known)} apart, the data has the classes {_listed(other)}")

    def evaluated_card(self, found: VisionCard, stored: VisionCard) -> VisionCard:
        return dataclasses.replace(stored, img_size=found.img_size)

    def fitting_options(self) -> dict[str, Any]:
        """Return fields of the model's configuration that follow from the data; those that it does not have are passed
        over."""
        assert self.card is not None
        options: dict[str, Any] = {"img_size": self.card.img_size, "in_chans": self.card.channels}
        if self.card.class_names is not None:
            names = tuple(self.card.class_names)
            options |= {"num_classes": len(names), "class_names": names}
        return options

    def new_model(self, fitting: Mapping[str, Any]) -> nn.Module:
        return build_model(self.model_name, fitting, self.options)

    def restored_model(self, checkpoint: Path, fitting: Mapping[str, Any]) -> nn.Module:
        """Return the model of a checkpoint with its own classes and channels, at the size of the images."""
        import longscan

        size = {"img_size": fitting["img_size"]} if "img_size" in _stored_config(checkpoint) else {}
        return longscan.from_pretrained(checkpoint, **size)

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


def _stored_config(checkpoint: Path) -> dict[str, Any]:
    from ...core.checkpoint_files import load_torch_file

    stored = load_torch_file(checkpoint).get("longscan", {}).get("model", {}).get("config") or {}
    return dict(stored.get("config", {}))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f", … ({len(names)})" if len(names) > 6 else "")
