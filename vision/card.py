"""What a model of images was trained on: size, channels, normalisation, classes; kept with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..core.data_card import DataCard

#: Mean and standard deviation of ImageNet's channels, of values between 0 and 1.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class VisionCard(DataCard):
    """What a model reads and what its outputs mean.

    Args:
        img_size: height and width that images are brought to, in pixels.
        channels: 3 (red, green, blue) or 1 (grey).
        class_names: in the order of the logits, for a classifier or a segmentation.
        mean: of each channel, of values between 0 and 1; subtracted.
        std: standard deviation of each channel; divided by.
        interpolation: by which images are resized.
        crop_pct: side of the central crop over the side that images are resized to.
    """

    domain: ClassVar[str] = "vision"
    required: ClassVar[tuple[str, ...]] = ("img_size",)

    img_size: tuple[int, int]
    channels: int = 3
    class_names: Sequence[str] | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: float = 0.875

    def __post_init__(self) -> None:
        object.__setattr__(self, "img_size", tuple(self.img_size))
        for name in ("class_names", "mean", "std"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
