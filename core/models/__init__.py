"""Models that belong to no domain: token models over any backbone, and Mamba language models."""

from .language_model import LanguageModel, LanguageModelConfig
from .mamba_lm import MambaOriginal, MambaTransformers
from .token_model import TokenModel

__all__ = ["LanguageModel", "LanguageModelConfig", "MambaOriginal", "MambaTransformers", "TokenModel"]
