"""Which recordings are trained on, validated on and tested on."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...core.errors import UserError, nearest
from ...core.training.hold_out import chosen_rows
from .manifest import Recordings

SplitKind = Literal["given", "random", "sorted"]
Rows = dict[str, np.ndarray]


def split_rows(
    recordings: Recordings,
    kind: SplitKind | None = None,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    hold_out_speaker: str | None = None,
) -> Rows:
    """Return the rows (int64, ascending) of ``"train"``, ``"val"`` and ``"test"``; a split without rows is empty.

    Args:
        recordings: to be split.
        kind: ``"given"``: as their origin says; ``"random"``: by fractions, of every class where there are classes;
            ``"sorted"``: the first are for training, then come validation and test. None: given where there are given
            ones, random otherwise.
        val_fraction: for validation, of all recordings, or of the training recordings where the given splits have no
            validation.
        test_fraction: for the test, of all recordings; the given splits have no use for it.
        seed: of random choices.
        hold_out_speaker: test on all recordings of this speaker (column ``speaker``) and train on all of the others.

    Raises:
        UserError: no splits are given, an unknown speaker, a speaker beside another kind of split, or too few
            recordings.
    """
    if hold_out_speaker is not None and kind in ("random", "sorted"):
        raise UserError(
            f"split={kind!r} and hold_out_speaker={hold_out_speaker!r} contradict each other; leave one of them away"
        )
    kind = kind or ("given" if recordings.splits is not None or hold_out_speaker is not None else "random")
    if hold_out_speaker is not None:
        given = _without_speaker(recordings, hold_out_speaker)
    elif kind == "given":
        if recordings.splits is None:
            raise UserError(f"{recordings.origin}: gives no splits; use split 'random' or 'sorted'")
        given = recordings.splits
    elif kind == "sorted":
        return _sorted(recordings, val_fraction, test_fraction)
    else:
        given = np.full(len(recordings), "train", dtype=object)
        if test_fraction:
            given[_chosen(recordings, np.arange(len(recordings)), test_fraction, seed + 1)] = "test"
    rows = {name: np.flatnonzero(given == name) for name in ("train", "val", "test")}
    if not len(rows["val"]) and len(rows["train"]) and val_fraction:
        held = _chosen(recordings, rows["train"], val_fraction, seed)
        rows["val"], rows["train"] = held, np.setdiff1d(rows["train"], held)
    return rows


def _chosen(recordings: Recordings, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """``fraction`` of the rows, of every class where there are classes."""
    if recordings.labels is None:
        targets = np.zeros(len(rows), dtype=np.int64)
    else:
        targets = np.unique(recordings.labels[rows].astype(str), return_inverse=True)[1]
    chosen = chosen_rows(targets, fraction, seed)
    if not chosen.any() or chosen.all():
        raise UserError(
            f"{recordings.origin}: {len(rows)} recordings are too few to hold out {fraction:g} of them; give more, or "
            "set val_fraction and test_fraction to 0"
        )
    return rows[chosen]


def _sorted(recordings: Recordings, val_fraction: float, test_fraction: float) -> Rows:
    size = len(recordings)
    train = round(size * (1 - val_fraction - test_fraction))
    val = train + round(size * val_fraction)
    rows = np.arange(size)
    return {"train": rows[:train], "val": rows[train:val], "test": rows[val:]}


def _without_speaker(recordings: Recordings, speaker: str) -> np.ndarray:
    speakers = recordings.columns.get("speaker")
    if speakers is None:
        raise UserError(f"{recordings.origin}: names no speakers (column 'speaker'); leave hold_out_speaker away")
    if speaker not in set(speakers):
        raise UserError(
            f"hold_out_speaker={speaker!r} is no speaker of {recordings.origin} ({nearest(speaker, set(speakers))})"
        )
    return np.where(speakers == speaker, "test", "train").astype(object)
