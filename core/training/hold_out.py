"""Rows that are held out of the training data for validation."""

from __future__ import annotations

import numpy as np


def chosen_rows(targets: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A bool mask of ``fraction`` of the rows, rounded, chosen by ``seed``.

    Args:
        targets: int64 (rows,), class indices: the fraction of every class, never the whole of one. Several targets,
            (rows, targets), have no classes to balance: the fraction of all rows.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(targets), dtype=bool)
    groups = [np.arange(len(targets))]
    if targets.ndim == 1:
        groups = [np.flatnonzero(targets == target) for target in np.unique(targets)]
    for group in groups:
        rows = generator.permutation(group)
        chosen[rows[: min(max(round(fraction * len(rows)), 1), len(rows) - 1)]] = True
    return chosen
