"""Features of variants from a table of sequence pairs: the reference and the same sequence with the variant.

As in the variant-effect task of Schiff et al. 2024 (arXiv:2403.03234): the hidden states of either sequence, averaged
around the variant, one after the other.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from .data.tables import SequenceTable, read_table
from .inference import DNAModel, Strand
from .probe_data import TableColumns, drawn, read_facts
from .probing import ProbeData
from .reading import BATCH_TOKENS
from .tokenizer import N

#: Bases around a variant whose hidden states are averaged, as published: 768 on either side of it.
AROUND = 1536
#: The share of N in the reference from which a row is left out, as published.
MAX_N_SHARE = 0.005


@dataclass(frozen=True)
class VariantPairs:
    """Rows of a table of sequence pairs.

    Attributes:
        ref, alt: of each row, ids (length,) uint8 without special tokens; both of one length.
        variant: (rows,) int64, the index of the variant in its pair; see `find_variant`.
        facts: the rest, of which features are to become part.
        left_out: how many rows of the table are not here, for their N.
    """

    ref: list[np.ndarray]
    alt: list[np.ndarray]
    variant: np.ndarray
    facts: ProbeData
    left_out: int


def find_variant(ref: np.ndarray, alt: np.ndarray) -> int:
    """The index at which two sequences (length,) differ: the middle, ``length // 2``, if they do there, otherwise the
    last index at which they do.

    Raises:
        ValueError: they are equal.
    """
    middle = len(ref) // 2
    if ref[middle] != alt[middle]:
        return middle
    different = np.flatnonzero(ref != alt)
    if not len(different):
        raise ValueError("the sequences are equal")
    return int(different[-1])


def read_pairs(
    model: DNAModel,
    path: str | os.PathLike[str],
    alt_column: str,
    columns: TableColumns = TableColumns(),  # noqa: B008 (frozen)
    *,
    limit: int | None = None,
    seed: int = 0,
) -> VariantPairs:
    """Read a table of sequence pairs, without the rows whose reference is N in a share of `MAX_N_SHARE` or more.

    Args:
        model: whose tokenizer reads them; upper and lower case are read alike.
        alt_column: the sequence with the variant; ``columns.sequence`` has the one without.
        limit: use only so many of the rows that are left; see `drawn`.

    Raises:
        UserError: what is wrong with the table, with file and line: sequences of a pair that are equal or differ in
            length, or are longer than the model takes; a label that is no number, in regression; no row left.
    """
    tokenizer = dataclasses.replace(model.tokenizer, case="upper")
    ref = read_table(path, tokenizer, sequence_column=columns.sequence, label_column=columns.label)
    alt = read_table(path, tokenizer, sequence_column=alt_column, label_column=None)
    variant = np.array([_checked_variant(ref, alt, row, columns.sequence, alt_column) for row in range(len(ref))])
    longest = int(np.argmax(ref.lengths))
    model.check_length(int(ref.lengths[longest]), ref.where(longest))
    share = np.array([np.mean(ref[row] == N) for row in range(len(ref))])
    rows = np.flatnonzero(share < MAX_N_SHARE)
    if not len(rows):
        raise UserError(f"{path}: every {columns.sequence} is N in {MAX_N_SHARE:.1%} or more; give others")
    left_out = len(ref) - len(rows)
    rows = drawn(rows, limit, seed)
    return VariantPairs(
        [ref[int(row)] for row in rows],
        [alt[int(row)] for row in rows],
        variant[rows],
        read_facts(ref, rows, columns),
        left_out,
    )


def embed_pairs(
    model: DNAModel, pairs: VariantPairs, *, around: int = AROUND, strand: Strand = "forward", batch_size: int = 16
) -> ProbeData:
    """Embed pairs: features (rows, 2 · d_model), the mean around the variant of ``ref``, then that of ``alt``.

    Sequences are read whole, in one pass; a batch holds sequences of one length alone, so that no result depends on
    the other rows.

    Args:
        around: half of these bases on either side of the variant are averaged with it; see `mean_around`.
        strand: see `DNAModel.features`, whose positions are the sequence's own for either strand.
    """
    from tqdm import tqdm

    lengths = np.array([len(symbols) for symbols in pairs.ref])
    x = np.empty((len(lengths), 2, model.d_model), np.float32)
    with tqdm(total=len(lengths), unit="pair", disable=None, desc="embed") as bar:
        for length in np.unique(lengths):
            members = np.flatnonzero(lengths == length)
            size = max(1, min(batch_size, BATCH_TOKENS // int(length)))
            for begin in range(0, len(members), size):
                rows = members[begin : begin + size]
                for allele, sequences in enumerate((pairs.ref, pairs.alt)):
                    features = model.features(np.stack([sequences[row] for row in rows]), strand)
                    x[rows, allele] = mean_around(features, pairs.variant[rows], around).float().cpu().numpy()
                bar.update(len(rows))
    return dataclasses.replace(pairs.facts, x=x.reshape(len(x), -1))


def mean_around(features: Tensor, variant: np.ndarray, around: int) -> Tensor:
    """Mean (batch, channels), float64, of features (batch, length, channels) from ``around // 2`` positions before
    each variant (batch,) to as many after it.

    Positions past an end of the sequence count as the one at that end, again and again, as published: the mean is
    always of ``2 · (around // 2) + 1`` terms.
    """
    offsets = np.arange(-(around // 2), around // 2 + 1)
    places = np.clip(variant[:, None] + offsets, 0, features.shape[1] - 1)
    index = torch.from_numpy(places).to(features.device)
    return features[torch.arange(len(index), device=features.device)[:, None], index].mean(1, dtype=torch.float64)


def _checked_variant(ref: SequenceTable, alt: SequenceTable, row: int, ref_column: str, alt_column: str) -> int:
    one, other = ref[row], alt[row]
    if len(one) != len(other):
        raise UserError(
            f"{ref.where(row)}: {ref_column} has {len(one)} bases, {alt_column} {len(other)}; give both one length, "
            f"or remove the row"
        )
    try:
        return find_variant(one, other)
    except ValueError:
        raise UserError(
            f"{ref.where(row)}: {ref_column} and {alt_column} do not differ; correct or remove the row"
        ) from None


__all__ = ["AROUND", "MAX_N_SHARE", "VariantPairs", "embed_pairs", "find_variant", "mean_around", "read_pairs"]
