"""What a data module asks of the model that it serves."""

from __future__ import annotations

import lightning.pytorch as pl

from ..tokenizer import DNATokenizer


def model_tokenizer(trainer: pl.Trainer | None) -> DNATokenizer | None:
    """Return the tokenizer of the weights that a trainer is about to ask; None in training, and without a trainer."""
    ask = getattr(None if trainer is None else trainer.lightning_module, "own_tokenizer", None)
    return None if ask is None else ask()


__all__ = ["model_tokenizer"]
