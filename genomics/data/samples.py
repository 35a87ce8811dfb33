"""Records as the samples of a loader."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ...core.errors import UserError
from ...core.training.data import SampleKey, sample_generator
from ..tokenizer import reverse_complement_ids
from .augmentation import SequenceAugmentation
from .interval_table import IntervalTable
from .tables import Records


class SequenceDataset(Dataset):
    """Records as samples with a class or several targets.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"symbols": uint8 ids without special tokens}``
    with ``"label"`` (class index, or an array of targets) where there are targets, and ``"name"`` and ``"index"`` (row)
    where ``named``; ``"unmasked"`` has the symbols before ``augmentation.masked``. Decoys
    (``augmentation.broken_frames``) come after the records, each made of a record drawn anew in every epoch.
    """

    def __init__(
        self,
        table: Records,
        targets: np.ndarray | None,
        *,
        rc_augment: float = 0.0,
        augmentation: SequenceAugmentation | None = None,
        class_names: list[str] | None = None,
        named: bool = False,
        seed: int = 0,
    ) -> None:
        self.table, self.targets = table, targets
        self.rc_augment, self.named, self.seed = rc_augment, named, seed
        self.augmentation, self.class_names = augmentation, class_names
        self.broken: np.ndarray | None = None
        if augmentation is not None and augmentation.broken_frames and class_names is not None:
            self.broken = np.flatnonzero(targets == class_names.index(augmentation.coding))

    def __len__(self) -> int:
        if self.broken is None:
            return len(self.table)
        assert self.augmentation is not None
        return len(self.table) + round(self.augmentation.broken_frames * len(self.broken))

    def select(self, rows: np.ndarray) -> SequenceDataset:
        """The same with the records at ``rows`` alone."""
        targets = None if self.targets is None else self.targets[rows]
        options: Any = {"rc_augment": self.rc_augment, "named": self.named, "seed": self.seed}
        options |= {"augmentation": self.augmentation, "class_names": self.class_names}
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
        generator = sample_generator(self.seed, key)
        if key.index < len(self.table):
            symbols, target = self.table[key.index], None if self.targets is None else self.targets[key.index]
        else:
            symbols, target = self._decoy(generator)
        if self.rc_augment and generator.random() < self.rc_augment:
            symbols = reverse_complement_ids(symbols)
        sample: dict[str, Any] = {"symbols": symbols}
        if self.augmentation is not None:
            sample["symbols"] = self.augmentation(symbols, generator)
            if self.augmentation.masked:
                sample["unmasked"] = symbols
        if target is not None:
            sample["label"] = target
        if self.named:
            sample |= {"name": str(self.table.names[key.index]), "index": key.index}
        return sample

    def _decoy(self, generator: np.random.Generator) -> tuple[np.ndarray, int]:
        assert self.broken is not None
        assert self.augmentation is not None
        assert self.class_names is not None
        symbols = self.table[int(generator.choice(self.broken))]
        return self.augmentation.decoy(symbols, generator), self.class_names.index(self.augmentation.not_coding)
