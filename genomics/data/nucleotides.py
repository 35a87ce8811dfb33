"""Sequences that say nothing: a model asked about N alone still answers, often with a probability near 1."""

from __future__ import annotations

import numpy as np

from ...core.errors import UserError
from ..tokenizer import A, DNATokenizer, T


def are_nucleotides(ids: np.ndarray) -> np.ndarray:
    """Whether each id is A, C, G or T; bool of the shape of ``ids``."""
    return (ids >= A) & (ids <= T)


def no_nucleotide(where: str, tokenizer: DNATokenizer) -> UserError:
    """The error about a sequence without one; ``where`` says which."""
    case = ", lower-case letters being none with the tokenizer's case 'keep'" if tokenizer.case == "keep" else ""
    return UserError(f"{where}: the sequence holds no A, C, G or T{case}, so nothing can be said of it; remove it")


__all__ = ["are_nucleotides", "no_nucleotide"]
