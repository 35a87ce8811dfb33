"""Records as the samples of a loader."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ...core.errors import UserError
from ...core.training.data import SampleKey, sample_generator
from ..tokenizer import reverse_complement_ids
from .interval_table import IntervalTable
from .tables import Records


class SequenceDataset(Dataset):
    """Records as samples with a class or several targets.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"symbols": uint8 ids without special tokens}``
    with ``"label"`` (class index, or an array of targets) where there are targets, and ``"name"`` and ``"index"`` (row)
    where ``named``.
    """

    def __init__(
        self,
        table: Records,
        targets: np.ndarray | None,
        *,
        rc_augment: float = 0.0,
        named: bool = False,
        seed: int = 0,
    ) -> None:
        self.table, self.targets = table, targets
        self.rc_augment, self.named, self.seed = rc_augment, named, seed

    def __len__(self) -> int:
        return len(self.table)

    def select(self, rows: np.ndarray) -> SequenceDataset:
        """The same with the records at ``rows`` alone."""
        targets = None if self.targets is None else self.targets[rows]
        options: Any = {"rc_augment": self.rc_augment, "named": self.named, "seed": self.seed}
        return SequenceDataset(self.table.select(rows), targets, **options)

    def set_seqlen(self, seqlen: int) -> None:
        """Take ``seqlen`` bases around the middle of each record from now on: for sequence-length warm-up.

        Raises:
            UserError: the records are sequences of their own, not intervals of a genome.
        """
        if not isinstance(self.table, IntervalTable):
            raise UserError("sequence-length warm-up needs intervals of a genome; use IntervalDataModule")
        self.table = self.table.widened(seqlen)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        symbols = self.table[key.index]
        if self.rc_augment and sample_generator(self.seed, key).random() < self.rc_augment:
            symbols = reverse_complement_ids(symbols)
        sample: dict[str, Any] = {"symbols": symbols}
        if self.targets is not None:
            sample["label"] = self.targets[key.index]
        if self.named:
            sample |= {"name": str(self.table.names[key.index]), "index": key.index}
        return sample
