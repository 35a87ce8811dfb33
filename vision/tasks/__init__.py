"""What image models are trained to do."""

from __future__ import annotations

from .classification import ImageClassification
from .mixing import MixingConfig
from .pixels import PixelModeling
from .segmentation import ImageSegmentation

__all__ = ["ImageClassification", "ImageSegmentation", "MixingConfig", "PixelModeling"]
