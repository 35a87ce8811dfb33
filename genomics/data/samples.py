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
    where ``named``.
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

    def __len__(self) -> int:
        return len(self.table)

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
        symbols = self.table[key.index]
        target = None if self.targets is None else self.targets[key.index]
        if self.rc_augment or self.augmentation is not None:
            generator = sample_generator(self.seed, key)
            if self.rc_augment and generator.random() < self.rc_augment:
                symbols = reverse_complement_ids(symbols)
            if self.augmentation is not None:
                symbols, target = self._augmented(symbols, target, generator)
        sample: dict[str, Any] = {"symbols": symbols}
        if target is not None:
            sample["label"] = target
        if self.named:
            sample |= {"name": str(self.table.names[key.index]), "index": key.index}
        return sample

    def _augmented(self, symbols: np.ndarray, target: Any, generator: np.random.Generator) -> tuple[np.ndarray, Any]:
        assert self.augmentation is not None
        if self.augmentation.broken_frames and self.class_names is not None:
            coding = self.class_names.index(self.augmentation.coding)
            if target == coding and self.augmentation.becomes_decoy(generator):
                symbols = self.augmentation.decoy(symbols, generator)
                target = self.class_names.index(self.augmentation.not_coding)
        return self.augmentation(symbols, generator), target
