"""The protocol by which Caduceus's variant-effect embeddings were compared, flaws included, for comparison with it.

Schiff et al. 2024 (arXiv:2403.03234), section on SNP effects, as in their notebook: features standardised, an SVM with
RBF kernel, C in {1, 5, 10}, 5,000 random training rows, five seeds; ROC-AUC of *hard* predictions; the C that is best
on the test rows. With the distances of the variants to the next start of transcription, all that once more for each
bucket of distances.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError
from .probing import ProbeData, measure

VALUES = (1.0, 5.0, 10.0)
ROWS, SEEDS = 5000, 5
FLAWS = (
    "ROC-AUC of hard predictions is the mean of sensitivity and specificity at one threshold, not a ranking",
    "C is picked on the test rows, so the best C's figure is too high",
    "the original's loader also drops the rows of an incomplete last batch (drop_last); here no row is dropped so",
)
BUCKET_FLAW = "buckets hold both their boundaries, so a row at 30,000 or 100,000 bases counts in two"
#: Bases at which one bucket ends and the next begins, and how the buckets are written.
EDGES = (0.0, 30_000.0, 100_000.0, float("inf"))
_EDGE_NAMES = ("0", "30k", "100k", "inf")


@dataclass(frozen=True)
class ProtocolRow:
    """One fit. ``auc_hard`` is the protocol's figure, ``auc_decision`` that of the decision function."""

    seed: int
    value: float
    train: int
    test: int
    auc_hard: float
    auc_decision: float


def caduceus_protocol(train: ProbeData, test: ProbeData, *, rows: int = ROWS, seeds: int = SEEDS) -> list[ProtocolRow]:
    """Return a row for each seed and C.

    Raises:
        UserError: other than two classes, or a draw of training rows with only one.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    for data in (train, test):
        if len(set(data.y)) != 2:
            raise UserError(f"{data.source}: {len(set(data.y))} class(es); --protocol caduceus-vep is for two")
    result = []
    for seed in range(seeds):
        chosen = np.random.default_rng(seed).permutation(len(train.y))[:rows]
        part = train.take(np.sort(chosen))
        if len(set(part.y)) < 2:
            raise UserError(f"{train.source}: the {len(chosen)} rows drawn with seed {seed} are all of one class")
        for value in VALUES:
            model = make_pipeline(StandardScaler(), SVC(C=value, kernel="rbf")).fit(part.x, part.y)
            positive = model.classes_[1]
            hard = float(roc_auc_score(test.y == positive, model.predict(test.x) == positive))
            decision = measure(model, test.x, test.y, "classification")["roc_auc"]
            result.append(ProtocolRow(seed, value, len(part.y), len(test.y), hard, decision))
    return result


def distance_buckets(distances: np.ndarray, *, closed: bool) -> dict[str, np.ndarray]:
    """Name to the indices of the rows of each bucket of distances (rows,), which may be none.

    Args:
        closed: a row at the boundary of two buckets is in both, as published; otherwise in the farther one alone.
    """
    buckets = {}
    for index, (low, high) in enumerate(itertools.pairwise(EDGES)):
        below = distances <= high if closed else distances < high
        bracket = "]" if closed and np.isfinite(high) else ")"
        name = f"[{_EDGE_NAMES[index]}, {_EDGE_NAMES[index + 1]}{bracket}"
        buckets[name] = np.flatnonzero((distances >= low) & below)
    return buckets


def best_on_test(rows: list[ProtocolRow]) -> float:
    """The C with the highest mean ``auc_hard`` over the seeds, as the protocol picks it."""
    return max(VALUES, key=lambda value: np.mean([row.auc_hard for row in rows if row.value == value]))


__all__ = ["BUCKET_FLAW", "EDGES", "FLAWS", "ProtocolRow", "best_on_test", "caduceus_protocol", "distance_buckets"]
