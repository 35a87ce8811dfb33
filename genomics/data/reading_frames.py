"""Open reading frames of both strands, and how they are broken."""

from __future__ import annotations

import numpy as np

from ..tokenizer import A, C, G, T

#: Stop codons of the standard code (TAA, TAG, TGA) as ids, as they read on the forward strand and, for a frame of the
#: reverse strand, in forward direction (TTA, CTA, TCA).
STOP_CODONS = (((T, A, A), (T, A, G), (T, G, A)), ((T, T, A), (C, T, A), (T, C, A)))

#: Longer stretches without a stop codon are broken, in codons: in DNA of equal base frequencies one of 40 is open by
#: chance with probability (61 / 64) ** 40 = 0.15.
LONGEST_OPEN = 40

_FRAMES = tuple((strand, offset) for strand in (0, 1) for offset in (0, 1, 2))


def longest_open_stretch(symbols: np.ndarray, strand: int, offset: int) -> tuple[int, int]:
    """Return first codon and number of codons of the longest stretch without a stop codon.

    Args:
        symbols: ids (length,).
        strand: 0 forward, 1 reverse.
        offset: base at which the first codon of the frame begins, 0 to 2, counted from the left on either strand.
    """
    codons = symbols[offset : offset + 3 * ((len(symbols) - offset) // 3)].reshape(-1, 3)
    stops = np.zeros(len(codons), dtype=bool)
    for codon in STOP_CODONS[strand]:
        stops |= (codons == np.array(codon, dtype=codons.dtype)).all(1)
    edges = np.concatenate([[-1], np.flatnonzero(stops), [len(codons)]])
    widest = int(np.diff(edges).argmax())
    return int(edges[widest]) + 1, int(edges[widest + 1] - edges[widest]) - 1


def broken_frames(symbols: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a decayed copy of ids (length,): no frame of either strand is open for more than `LONGEST_OPEN` codons.

    In half of the copies one or two losses or gains of one or two bases shift the frame first (the length is kept:
    random bases fill the end, or the end is lost); then each long open stretch gets one to three stop codons.
    """
    result = symbols.copy()
    length = len(result)
    if length > 20 and generator.random() < 0.5:
        for _ in range(int(generator.integers(1, 3))):
            place, size = int(generator.integers(10, length - 10)), int(generator.integers(1, 3))
            random = generator.integers(A, T + 1, size=size)
            if generator.random() < 0.5:
                result = np.concatenate([result[:place], result[place + size :], random]).astype(symbols.dtype)
            else:
                result = np.concatenate([result[:place], random, result[place:-size]]).astype(symbols.dtype)
    # A stop codon of one frame can overwrite that of another, so all are looked at until none is open.
    while frames := [frame for frame in _FRAMES if longest_open_stretch(result, *frame)[1] > LONGEST_OPEN]:
        for strand, offset in frames:
            first, codons = longest_open_stretch(result, strand, offset)
            for _ in range(int(generator.integers(1, 4)) if codons > LONGEST_OPEN else 0):
                place = offset + 3 * int(generator.integers(first + 5, first + codons - 5))
                result[place : place + 3] = STOP_CODONS[strand][int(generator.integers(3))]
    return result
