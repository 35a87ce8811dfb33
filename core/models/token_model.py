"""A model of token sequences: embedding, backbone, head."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbone import Backbone, BackboneConfig
from ..heads import ClassificationHead, HeadConfig
from ..mixers import State


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


class TokenModel(nn.Module):
    """Embedding, backbone and head over a vocabulary. The base of the language and DNA models.

    ``forward`` maps ids (batch, length) int64 to logits: (batch, length, vocabulary) for a language-model head,
    (batch, num_classes) for a classification head. ``mask`` (batch, length) marks real tokens for pooling.

    Args:
        config: the model's own configuration, kept as ``self.config``; supplies the head.
        backbone: configuration of the stack.
        vocab_rows: rows of the embedding, padding of the vocabulary included.
        tie_embeddings: whether the language-model head uses the embedding's matrix.
        embedding_dropout: dropout of the embeddings in training.
    """

    def __init__(
        self,
        config: HeadConfig,
        backbone: BackboneConfig,
        *,
        vocab_rows: int,
        tie_embeddings: bool = True,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.d_model, self.tie_embeddings = backbone.d_model, tie_embeddings
        self.embedding = nn.Embedding(vocab_rows, self.d_model)
        nn.init.normal_(self.embedding.weight, std=backbone.initializer_range)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.backbone = Backbone(backbone)
        self.head: nn.Module | None
        if config.head == "classification":
            self.head = ClassificationHead(self.d_model, config)
            nn.init.normal_(self.head.output.weight, std=backbone.initializer_range)
        elif tie_embeddings:
            self.head = None
        else:
            self.head = nn.Linear(self.d_model, vocab_rows, bias=False)
            nn.init.normal_(self.head.weight, std=backbone.initializer_range)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Return logits."""
        return self.forward_head(self.forward_features(input_ids, cu_seqlens=cu_seqlens), mask)

    def forward_features(self, input_ids: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Return the hidden sequence after the final norm, (batch, length, d_model)."""
        return self.forward_embeddings(self.embed(input_ids), cu_seqlens=cu_seqlens)

    def forward_embeddings(self, embeddings: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Return the hidden sequence after the final norm of (batch, length, d_model) in place of embedded ids.

        So that learned vectors can stand before a sequence (soft prompts).
        """
        return self.backbone(embeddings, cu_seqlens=cu_seqlens)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Look up (and in training drop out) embeddings."""
        return self.embedding_dropout(self.embedding(input_ids))

    def forward_head(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits of the hidden sequence (for one token of shape (batch, d_model) too)."""
        return self.head(features, mask) if isinstance(self.head, ClassificationHead) else self.token_logits(features)

    def token_logits(self, features: Tensor) -> Tensor:
        """Return logits over the vocabulary of the hidden sequence, also of a classifier whose embedding would be a
        language model's head: (batch, length, d_model) to (batch, length, vocabulary).

        Raises:
            ValueError: for a classifier of a kind whose language models have a matrix of their own for that.
        """
        if isinstance(self.head, ClassificationHead) and not self.tie_embeddings:
            raise ValueError(f"this {type(self).__name__} is a classifier and has no head over the vocabulary")
        weight = self.head.weight if isinstance(self.head, nn.Linear) else self.embedding.weight
        return nn.functional.linear(features.to(weight.dtype), weight)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> list[State]:
        """Return the empty state for generation.

        Raises:
            ValueError: if a mixer is not causal.
        """
        return self.backbone.init_state(batch_size, device, dtype)

    def prefill(self, input_ids: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Read (batch, length) ids; return logits of every position and the state after the last."""
        features, state = self.prefill_features(input_ids, state)
        return self.forward_head(features), state

    def prefill_features(self, input_ids: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Read (batch, length) ids; return the hidden sequence after the final norm, (batch, length, d_model), and the
        state after the last token. Pieces with the state carried between them equal ``forward_features`` of the whole.

        Raises:
            ValueError: if a mixer is not causal.
        """
        return self.backbone.prefill(self.embed(input_ids), state)

    def step(self, input_ids: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        """Read one id for each sequence, (batch,); return logits (batch, vocabulary) and the state."""
        features, state = self.backbone.step(self.embed(input_ids), state)
        return self.forward_head(features), state

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": type(self).__name__, "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ..pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)
