"""How the compiled kernels see a batch: sequences in one token axis, split into parts for the threads."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import numpy as np

#: Parts into which the sequences are split; fixed, so that sums over parts do not depend on the number of threads.
MAX_PARTS = 16

#: Tokens in a part, at least: below, a task takes little longer than calling it.
MIN_TOKENS = 256


class Sequences(NamedTuple):
    """Offsets (sequences + 1) in tokens and in chunks, and the parts: part p holds sequences [parts[p], parts[p+1])."""

    offsets: np.ndarray
    chunk_offsets: np.ndarray
    parts: list[int]


def split(offsets: list[int], chunk: int) -> Sequences:
    """Parts of about equal numbers of tokens; chunks of ``chunk`` tokens that do not cross sequences."""
    tokens = np.asarray(offsets, dtype=np.int64)
    chunks = np.concatenate([[0], np.cumsum(-(-np.diff(tokens) // chunk))])
    count = len(offsets) - 1
    wanted = max(1, min(MAX_PARTS, count, offsets[-1] // MIN_TOKENS))
    bounds = {bisect_left(offsets, offsets[-1] * part / wanted) for part in range(wanted)} | {count}
    return Sequences(tokens, chunks.astype(np.int64), sorted(bounds))


def chunk_count(packed: bool, sequences: int, length: int, chunk: int) -> int:
    """How many chunks to make room for, known from shapes alone: for packed sequences an upper bound."""
    if packed:
        return length // chunk + sequences
    return sequences * -(-length // chunk)
