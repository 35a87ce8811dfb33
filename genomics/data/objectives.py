"""What a language model is asked on a window of DNA: the next nucleotide, or the ones that were masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...core.errors import UserError
from ...core.training.metrics import IGNORED
from ..tokenizer import MASK, PAD, SEP, VOCABULARY, A, DNATokenizer, N, T


def is_nucleotide(ids: np.ndarray) -> np.ndarray:
    """True at A, C, G and T; False at N and the special tokens."""
    return (ids >= A) & (ids <= T)


def causal_sample(symbols: np.ndarray, tokenizer: DNATokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of next-token prediction: the ids with the tokenizer's special tokens, without the last one
    and without the first one. Targets that are neither a nucleotide nor [SEP] are ignored.

    Returns:
        Two int64 arrays of shape (number of ids - 1,).
    """
    ids = tokenizer.add_special_tokens(symbols)
    targets = ids[1:]
    return ids[:-1], np.where(is_nucleotide(targets) | (targets == SEP), targets, IGNORED)


@dataclass(frozen=True)
class Masking:
    """The masked-language-model corruption of BERT (Devlin et al. 2019, section 3.1) on nucleotides.

    Args:
        fraction: probability with which each nucleotide becomes a target.
        masked: share of the targets shown as [MASK].
        replaced: share of the targets shown as a random id; the others are shown as they are.
        random_ids: ``"published"`` draws from all 12 ids of the vocabulary, special tokens included, as the code that
            trained Caduceus does; ``"nucleotides"`` draws from A, C, G and T.
    """

    fraction: float = 0.15
    masked: float = 0.8
    replaced: float = 0.1
    random_ids: Literal["published", "nucleotides"] = "published"

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UserError(f"masking: fraction={self.fraction} must lie in (0, 1]")
        if self.masked < 0 or self.replaced < 0 or self.masked + self.replaced > 1 + 1e-9:
            raise UserError(
                f"masking: masked={self.masked} and replaced={self.replaced} must be at least 0 and add up to at most 1"
            )
        if self.random_ids not in ("published", "nucleotides"):
            raise UserError(f"masking: random_ids={self.random_ids!r} is not 'published' or 'nucleotides'")

    def sample(self, symbols: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of one window: int64 arrays of its shape. At least one nucleotide is a target.

        Only nucleotides are chosen, so N and special tokens are never targets and never change.
        """
        ids = symbols.astype(np.int64)
        nucleotides = is_nucleotide(ids)
        chosen = nucleotides & (generator.random(len(ids)) < self.fraction)
        if not chosen.any():
            chosen[generator.choice(np.flatnonzero(nucleotides))] = True
        targets = np.where(chosen, ids, IGNORED)
        low, high = (0, len(VOCABULARY)) if self.random_ids == "published" else (A, T + 1)
        random_ids = generator.integers(low, high, size=len(ids))
        fate = generator.random(len(ids))
        ids = np.where(chosen & (fate < self.masked), MASK, ids)
        replaced = chosen & (fate >= self.masked) & (fate < self.masked + self.replaced)
        return np.where(replaced, random_ids, ids), targets


def n_as_padding(ids: np.ndarray) -> np.ndarray:
    """Every N shown as [PAD], as in the published Caduceus pretraining."""
    return np.where(ids == N, PAD, ids)
