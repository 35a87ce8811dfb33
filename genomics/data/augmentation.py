"""Random changes of training sequences; each a pure function of the generator it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from ..tokenizer import MASK, A, T
from .objectives import is_nucleotide
from .reading_frames import broken_frames


@dataclass(frozen=True)
class SequenceAugmentation:
    """What is done to a training sequence, drawn anew in every epoch.

    Args:
        masked: share of the bases shown as [MASK], as in masked pretraining.
        mutated: share of the bases replaced by one of the other three.
        broken_frames: so many decoys for each sequence of class ``coding`` are shown besides: one of these with its
            reading frames broken (stop codons, and before them in every other case lost or gained bases), as of class
            ``not_coding``: what time makes of a gene that selection no longer keeps. Without decoys a classifier
            learns what coding DNA is composed of, and takes the remains of genes and of transposons for genes.
        coding: name of the class that is broken.
        not_coding: name of the class that it becomes.
    """

    masked: float = 0.0
    mutated: float = 0.0
    broken_frames: float = 0.0
    coding: str = "coding"
    not_coding: str = "intergenic"

    def __post_init__(self) -> None:
        for name in ("masked", "mutated"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"augmentation.{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.broken_frames < 0:
            raise UserError(f"augmentation.broken_frames={self.broken_frames} must not be negative")
        if self.masked + self.mutated >= 1:
            raise UserError("augmentation: masked and mutated must add up to less than 1")

    def check_classes(self, names: list[str]) -> None:
        """Raise UserError if the classes that ``broken_frames`` needs are not among ``names``."""
        for field in ("coding", "not_coding") if self.broken_frames else ():
            if getattr(self, field) not in names:
                raise UserError(
                    f"augmentation.{field}={getattr(self, field)!r} is no class of the data ({', '.join(names)})"
                )

    def decoy(self, symbols: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return ids (length,) with all long open reading frames broken; see `broken_frames`."""
        return broken_frames(symbols, generator)

    def __call__(self, symbols: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return ids (length,) uint8 with some nucleotides masked and some replaced; N and special tokens stay."""
        if not (self.masked or self.mutated):
            return symbols
        chance = generator.random(len(symbols))
        chance[~is_nucleotide(symbols)] = 1
        result = symbols.copy()
        result[chance < self.masked] = MASK
        mutated = (chance >= self.masked) & (chance < self.masked + self.mutated)
        nucleotides = T - A + 1
        shift = generator.integers(1, nucleotides, size=int(mutated.sum()))
        result[mutated] = A + (symbols[mutated] - A + shift) % nucleotides
        return result
