"""Which alleles can be scored, and why the others cannot."""

from __future__ import annotations

import functools

import numpy as np

from ..tokenizer import DNATokenizer, T

SCORED = "scored"
NOT_FINITE = "not_finite"

#: Every status that a variant can have, and what it says.
STATUSES: dict[str, str] = {
    SCORED: "has a score",
    "missing": "ALT is `.`: the record has no alternative",
    "star": "ALT is `*`: the site is deleted by another variant",
    "breakend": "ALT is a breakend",
    "symbolic": "ALT is a symbol such as <DEL>",
    "identical": "ALT is the same as REF",
    "too_long": "REF or ALT is longer than the window's right half",
    "too_many_n": "too much of the window is N or beyond the contig",
    "ambiguous": "REF or ALT has letters other than A, C, G, T",
    "ref_mismatch": "REF is not what the FASTA has",
    NOT_FINITE: "the model's answer is infinite or no number",
}
_ENCODER = DNATokenizer(iupac="n")
_LETTERS = frozenset("ACGT")


def unusable(ref: str, alt: str) -> str | None:
    """Return the status of an ALT that stands for no sequence or no change, ``None`` for one that may be scored."""
    if alt == ".":
        return "missing"
    if alt == "*":
        return "star"
    if "[" in alt or "]" in alt or alt[0] == "." or alt[-1] == ".":
        return "breakend"
    if alt[0] == "<":
        return "symbolic"
    return "identical" if ref.upper() == alt.upper() else None


def plain_bases(allele: str) -> bool:
    """Whether an allele has only A, C, G, T, in either case."""
    return bool(allele) and _LETTERS.issuperset(allele.upper())


@functools.lru_cache(maxsize=256)
def encode_bases(allele: str) -> np.ndarray:
    """Return the ids of plain bases, uint8, read-only."""
    return _ENCODER.encode_symbols(allele)


def known_bases(ids: np.ndarray) -> np.ndarray:
    """Return where ids are A, C, G or T, bool of the same shape."""
    return (ids >= T - 3) & (ids <= T)
