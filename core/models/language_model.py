"""A language model over any backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..backbone import BackboneConfig
from ..heads import HeadConfig
from ..registry import register_architecture
from .token_model import TokenModel, round_up


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(HeadConfig):
    """Any mixers over any vocabulary."""

    backbone: BackboneConfig
    """The stack."""
    vocab_size: int
    """Number of tokens."""
    pad_vocab_size_multiple: int = 1
    """The embedding is padded with unused rows to a multiple of this."""
    tie_embeddings: bool = True
    """Use the embedding's matrix as the head."""
    embedding_dropout: float = 0.0
    """Dropout of the embeddings."""
    tokenizer: dict[str, Any] | None = None
    """Settings of the tokenizer that the model was trained with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", BackboneConfig(**self.backbone))


@register_architecture("LanguageModel", LanguageModelConfig)
class LanguageModel(TokenModel):
    """Embedding, any stack of mixers, and a head: hybrids need only a configuration."""

    config: LanguageModelConfig

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__(
            config,
            config.backbone,
            vocab_rows=round_up(config.vocab_size, config.pad_vocab_size_multiple),
            tie_embeddings=config.tie_embeddings,
            embedding_dropout=config.embedding_dropout,
        )

    @staticmethod
    def mamba_config(
        d_model: int, n_layer: int, vocab_size: int, mixer: Mapping[str, Any] | None = None, **options: Any
    ) -> LanguageModelConfig:
        """Return the configuration of a Mamba-1 language model (Gu and Dao 2023), ``mixer`` options included."""
        backbone = BackboneConfig(d_model=d_model, layers=[{"name": "mamba", **(mixer or {})}], repeat=n_layer)
        return LanguageModelConfig(backbone=backbone, vocab_size=vocab_size, **options)
