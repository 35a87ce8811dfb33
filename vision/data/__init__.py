"""Images with classes, with masks, and as sequences of pixels.

The data modules need lightning, which takes seconds to import, so each is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch_augmentation import BatchAugmentation
    from .classification import ImageClassificationDataModule
    from .decoding import decode_image
    from .images import Images
    from .pixels import PixelSequenceDataModule
    from .segmentation import SegmentationDataModule
    from .transforms import ImageAugmentation

_MODULES = {
    "BatchAugmentation": "batch_augmentation",
    "ImageAugmentation": "transforms",
    "ImageClassificationDataModule": "classification",
    "Images": "images",
    "PixelSequenceDataModule": "pixels",
    "SegmentationDataModule": "segmentation",
    "decode_image": "decoding",
}

__all__ = [
    "BatchAugmentation",
    "ImageAugmentation",
    "ImageClassificationDataModule",
    "Images",
    "PixelSequenceDataModule",
    "SegmentationDataModule",
    "decode_image",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
