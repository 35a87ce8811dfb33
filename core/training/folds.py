"""Splitting training rows for cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError


def check_folds(folds: int | None, fold: int) -> None:
    """Check the options of a data module.

    Raises:
        UserError: fewer than two folds, or a fold that there is not.
    """
    if folds is None:
        if fold != 0:
            raise UserError(f"fold={fold} needs folds, the number of parts; give it")
        return
    if folds < 2:
        raise UserError(f"folds={folds}: cross-validation needs at least 2")
    if not 0 <= fold < folds:
        raise UserError(f"fold={fold}: the folds are numbered 0 to {folds - 1}")


def stratified_folds(targets: np.ndarray, folds: int, seed: int, names: Sequence[str] | None = None) -> np.ndarray:
    """Deal rows out to folds, class by class, so that the folds differ by at most one row in each class and in size.

    Args:
        targets: class of each row, (rows,) of any type that can be sorted; several targets of each row, (rows,
            targets), have no classes to balance, and only the sizes are.
        folds: number of parts.
        seed: decides which rows of a class go to which fold.
        names: names of the classes for messages, where ``targets`` are indices.

    Returns:
        The fold of each row, (rows,) int64 from 0 to ``folds - 1``.

    Raises:
        UserError: fewer than two folds, or more than a class has rows.
    """
    check_folds(folds, 0)
    if targets.ndim > 1:
        targets, names = np.zeros(len(targets), dtype=np.int64), ["all"]
    values, counts = np.unique(targets, return_counts=True)
    if len(values) and counts.min() < folds:
        rarest = values[counts.argmin()]
        name = names[int(rarest)] if names is not None else str(rarest)
        raise UserError(
            f"folds={folds}: class {name!r} has only {counts.min()} training rows; "
            f"use at most {counts.min()} folds, or leave the class out"
        )
    generator = np.random.default_rng(seed)
    result = np.empty(len(targets), dtype=np.int64)
    begin = 0  # where the last class ended, the next begins: otherwise all odd rows would go to the first folds
    for value, count in zip(values, counts, strict=True):
        rows = generator.permutation(np.flatnonzero(targets == value))
        result[rows] = (begin + np.arange(count)) % folds
        begin = (begin + int(count)) % folds
    return result
