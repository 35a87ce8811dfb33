"""What mixes training images with each other or erases parts of them, on the model's device, through timm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.errors import UserError


@dataclass(frozen=True)
class MixingConfig:
    """How images of a batch are mixed, and their classes with them.

    Args:
        mixup: α of mixup (Zhang et al. 2018, arXiv:1710.09412), which averages two images; 0 is without.
        cutmix: α of CutMix (Yun et al. 2019, arXiv:1905.04899), which puts a part of one into another; 0 is without.
        probability: of either.
        switch: probability of CutMix where there are both.
        mode: one draw for each ``"batch"``, ``"pair"`` or image (``"elem"``).
        erasing: probability of erasing a rectangle (Zhong et al. 2017, arXiv:1708.04896).
        erasing_mode: filled with ``"const"`` (the mean), a random colour (``"rand"``) or noise (``"pixel"``).
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5
    mode: Literal["batch", "pair", "elem"] = "batch"
    erasing: float = 0.0
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise UserError(f"mixing.{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("probability", "switch", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"mixing.{name} is {getattr(self, name)}; expected 0 … 1")
        if self.mode not in ("batch", "pair", "elem") or self.erasing_mode not in ("const", "rand", "pixel"):
            raise UserError(f"mixing: mode {self.mode!r} or erasing_mode {self.erasing_mode!r} is unknown")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed at all."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


class Mixing:
    """Erases and mixes a batch; draws from the global generators, whose state checkpoints hold."""

    def __init__(self, config: MixingConfig, num_classes: int, label_smoothing: float) -> None:
        self.config, self.num_classes, self.smoothing = config, num_classes, label_smoothing
        self._mixup: Any = None
        if config.mixes:
            from timm.data import Mixup

            self._mixup = Mixup(
                config.mixup,
                config.cutmix,
                prob=config.probability,
                switch_prob=config.switch,
                mode=config.mode,
                label_smoothing=label_smoothing,
                num_classes=num_classes,
            )

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised images (batch, channels, height, width) mixed, and the share of each class in them
        (batch, classes), label smoothing included.

        Images are mixed with the batch in reverse; in a batch of odd size the last one stays as it is.
        """
        if self.config.erasing:
            from timm.data.random_erasing import RandomErasing

            erase = RandomErasing(self.config.erasing, mode=self.config.erasing_mode, device=str(images.device))
            images = erase(images)
        even = len(images) - len(images) % 2
        if self._mixup is None or not even:
            return images, self._targets(labels)
        images = images.contiguous()
        mixed, targets = self._mixup(images[:even], labels[:even])
        if even == len(images):
            return mixed, targets
        return torch.cat([mixed, images[even:]]), torch.cat([targets, self._targets(labels[even:])])

    def _targets(self, labels: Tensor) -> Tensor:
        off = self.smoothing / self.num_classes
        full = torch.full((len(labels), self.num_classes), off, device=labels.device)
        return full.scatter_(1, labels.view(-1, 1), 1 - self.smoothing + off)
