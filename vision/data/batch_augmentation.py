"""Augmentation of whole batches where they are: on a GPU it costs next to nothing, and no loader process is needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import UserError
from .batch_operations import OPERATIONS, apply_operations

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class BatchAugmentation:
    """What is changed at random in batches of training images of one size, each time anew.

    With ``operations`` 1 and ``magnitude`` 1 it is TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158), with more
    of them RandAugment (Cubuk et al. 2019, arXiv:1909.13719) of random strengths; the operations and the ranges of
    their strength are those of RandAugment.

    Args:
        padding: a part of the image's size is taken of the image with so many black pixels around.
        hflip: probability of a mirror image.
        operations: how many of the operations (`batch_operations.OPERATIONS`) come one after the other.
        magnitude: strength of operations, each drawn evenly between 0 and this; 1 is the strongest.
    """

    padding: int = 0
    hflip: float = 0.5
    operations: int = 0
    magnitude: float = 1.0

    def __post_init__(self) -> None:
        if self.padding < 0 or self.operations < 0:
            raise UserError("batch_augmentation: padding and operations must not be negative")
        for name in ("hflip", "magnitude"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"batch_augmentation.{name} is {getattr(self, name)}; expected 0 … 1")

    def __call__(self, images: Tensor, index: Tensor, epoch: int, seed: int, fill: Tensor) -> Tensor:
        """Augment uint8 images (batch, channels, height, width).

        An image becomes a function of ``(seed, epoch, index)`` alone, whatever else is in its batch.

        Args:
            images: the batch.
            index: number of each image in its set, int64 (batch,).
            epoch: counted from 0.
            seed: of the run.
            fill: value (channels,), 0 … 255, of what rotations and shifts by an operation leave empty.

        Returns:
            uint8, of the same shape.
        """
        draws = uniform(index, epoch, seed, 3 + 3 * self.operations)
        images = self._cropped(images, draws[:, 0], draws[:, 1], draws[:, 2] < self.hflip)
        if not self.operations:
            return images
        values = images.float()
        for part in draws[:, 3:].split(3, dim=1):
            choice, strength, sign = part.unbind(1)
            kind = (choice * len(OPERATIONS)).long()
            values = apply_operations(values, kind, strength * self.magnitude, sign < 0.5, fill)
        return values.round_().clamp_(0, 255).to(torch.uint8)

    def _cropped(self, images: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        if self.padding:
            images = torch.nn.functional.pad(images, [self.padding] * 4)
        places = 2 * self.padding + 1
        rows = torch.arange(height, device=images.device) + (down * places).long()[:, None]
        columns = torch.arange(width, device=images.device).expand(batch, width)
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + (right * places).long()[:, None]
        samples = torch.arange(batch, device=images.device)[:, None, None, None]
        planes = torch.arange(channels, device=images.device)[:, None, None]
        return images[samples, planes, rows[:, None, :, None], columns[:, None, None, :]]


def uniform(index: Tensor, epoch: int, seed: int, count: int) -> Tensor:
    """Return numbers in [0, 1), float32 (batch, count), that are functions of (seed, epoch, index) alone.

    The generator is counter-based: the mixing function of SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom
    number generators") over the counters.
    """
    key = _mixed_number(_mixed_number(seed & _MASK) + epoch)
    samples = _mixed(index[:, None].long() * _signed(_GOLDEN) + _signed(key))
    draws = _mixed(samples + torch.arange(1, count + 1, device=index.device) * _signed(_GOLDEN))
    return _shifted(draws, 40).float() / 2**24


def _mixed_number(number: int) -> int:
    number = (number + _GOLDEN) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def _mixed(numbers: Tensor) -> Tensor:
    numbers = (numbers ^ _shifted(numbers, 30)) * _signed(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ _shifted(numbers, 27)) * _signed(0x94D049BB133111EB)
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift int64 to the right as if it had no sign."""
    return (numbers >> bits) & (_MASK >> bits)


def _signed(number: int) -> int:
    """The int64 with the bits of ``number``."""
    return number - 2**64 if number >= 2**63 else number
