"""A model of images ready to be asked: on its device, with the card of what it was trained on."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.device import find_device
from ..core.errors import UserError
from ..core.model_place import fetched_place
from .card import IMAGENET_MEAN, IMAGENET_STD, VisionCard
from .data.images import Images
from .data.transforms import evaluation_transform


@dataclass(frozen=True)
class VisionModel:
    """A model and its card.

    Args:
        model: in evaluation mode, on ``device``.
        card: what it was trained on.
        name: as it was asked for.
        device: where it computes.
    """

    model: Any
    card: VisionCard
    name: str
    device: torch.device

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the logits; their numbers where nobody named them.

        Raises:
            UserError: the model has no classes.
        """
        if self.card.class_names is not None:
            return list(self.card.class_names)
        count = int(getattr(self.model, "num_classes", 0))
        if count < 1:
            raise UserError(f"{self.name}: has no classes; choose a classifier as --model")
        return [str(index) for index in range(count)]

    def prepare(self, image: Any) -> Tensor:
        """Return a ``PIL`` image as in evaluation: uint8 (channels, height, width)."""
        card = self.card
        transform = evaluation_transform(
            card.img_size, card.channels, interpolation=card.interpolation, crop_pct=card.crop_pct
        )
        return transform(image)

    def normalised(self, images: Tensor) -> Tensor:
        """Return uint8 images (batch, channels, height, width) as the model reads them, float32 on its device."""
        images = images.to(self.device)
        mean = torch.tensor(self.card.mean, device=self.device).view(-1, 1, 1) * 255
        std = torch.tensor(self.card.std, device=self.device).view(-1, 1, 1) * 255
        return (images.float() - mean) / std

    def batches(self, images: Images, size: int) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Yield the numbers of images and the images as the model reads them, ``size`` at a time.

        Raises:
            UserError: an image that cannot be decoded; names it.
        """
        card = self.card
        transform = evaluation_transform(
            card.img_size, card.channels, interpolation=card.interpolation, crop_pct=card.crop_pct
        )
        for first in range(0, len(images), size):
            rows = range(first, min(first + size, len(images)))
            yield rows, self.normalised(torch.stack([transform(images.read(row, card.channels)) for row in rows]))

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) float32 of images as `normalised` gives them.

        Raises:
            UserError: the model does not put an image in a class.
        """
        result: Tensor = self.model(images)
        if result.dim() != 2:
            raise UserError(
                f"{self.name}: {type(self.model).__name__} gives logits of {tuple(result.shape[1:])} for an image, not "
                "one for each class; choose a classifier as --model (`vision predict` measures segmentations)"
            )
        return result.float()

    @torch.inference_mode()
    def features(self, images: Tensor) -> np.ndarray:
        """Return pooled features (batch, width) float32 of images as `normalised` gives them."""
        found: Tensor = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return found.float().cpu().numpy()


def load_model(arguments: argparse.Namespace, *, pixels: bool = False) -> VisionModel:
    """Load the model that the options of `commands.options.add_model_arguments` name; with ``pixels`` one of sequences
    of intensities, whose card alone knows the size of the images.

    Raises:
        UserError: an unknown model, one that reads no images, a size that it cannot take, or no such device.
    """
    import longscan

    if arguments.threads is not None:
        if arguments.threads < 1:
            raise UserError(f"--threads {arguments.threads}: must be at least 1")
        torch.set_num_threads(arguments.threads)
    device = find_device(arguments.device)
    size: dict[str, Any] = {} if arguments.img_size is None else {"img_size": _size(arguments.img_size)}
    fields: dict[str, Any] = {} if pixels else size
    model: Any = longscan.from_pretrained(arguments.model, revision=arguments.revision, **fields)
    card = VisionCard.read(fetched_place(arguments.model, arguments.revision))
    if card is None:
        card = card_of(model, arguments.model)
    if size:
        card = dataclasses.replace(card, img_size=size["img_size"])
    return VisionModel(model.eval().to(device), card, arguments.model, device)


def card_of(model: Any, name: str) -> VisionCard:
    """Return what the model's own configuration says of its data, with ImageNet's normalisation.

    Raises:
        UserError: it reads no images.
    """
    config = getattr(model, "config", None)
    size, channels = getattr(config, "img_size", None), getattr(config, "in_chans", None)
    if channels is None:
        raise UserError(f"{name}: {type(model).__name__} reads no images; choose a model of images as --model")
    size = (224, 224) if size is None else (size, size) if isinstance(size, int) else tuple(size)
    if channels == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    else:
        mean, std = (0.5,) * channels, (0.5,) * channels  # type: ignore[assignment]
    names = getattr(config, "class_names", None)
    return VisionCard(img_size=size, channels=channels, class_names=names, mean=mean, std=std)


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--img-size {text}: give pixels, as in 224, or height and width, as in 224x320")
    return int(parts[0]), int(parts[-1])
