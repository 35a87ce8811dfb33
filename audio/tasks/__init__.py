"""What audio models are trained to do."""

from __future__ import annotations

from .autoregressive import WaveformModeling
from .classification import AudioClassification
from .diffusion import WaveformDiffusion
from .effects import EffectRegression

__all__ = ["AudioClassification", "EffectRegression", "WaveformDiffusion", "WaveformModeling"]
