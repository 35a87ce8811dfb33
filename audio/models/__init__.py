"""Audio models: generation, classification, effects and diffusion."""

from . import zoo  # noqa: F401  (registers the models that ship)
from .diffwave import DiffWave, DiffWaveConfig
from .diffwave_format import DiffWaveSaShiMi
from .s4_classifier import S4Classifier, S4ClassifierConfig
from .s4_compressor import S4Compressor, S4CompressorConfig
from .sashimi import SaShiMi, SaShiMiConfig
from .sashimi_formats import SaShiMiStandalone, SaShiMiTraining

__all__ = [
    "DiffWave",
    "DiffWaveConfig",
    "DiffWaveSaShiMi",
    "S4Classifier",
    "S4ClassifierConfig",
    "S4Compressor",
    "S4CompressorConfig",
    "SaShiMi",
    "SaShiMiConfig",
    "SaShiMiStandalone",
    "SaShiMiTraining",
]
