"""Data modules whose training restarts in mid-epoch exactly where it stopped.

Two ideas make this simple. The content and the order of the data are pure functions of ``(seed, epoch, index)``, so
nothing about randomness has to be saved; and the loader starts its iteration only when the first batch is asked for,
so the position restored from a checkpoint is known before any worker prefetches anything.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from ..errors import UserError
from .samplers import LengthBatches, ResumableSampler, SampleKey, sample_generator

__all__ = [
    "EvaluationLoader",
    "LengthBatches",
    "ResumableDataModule",
    "ResumableLoader",
    "ResumableSampler",
    "SampleKey",
    "TrainPosition",
    "sample_generator",
]


@dataclass
class TrainPosition:
    """How far training has come: ``batch`` batches of ``epoch`` were handed out."""

    epoch: int = 0
    batch: int = 0
    begun: bool = False

    def begin(self) -> tuple[int, int]:
        """Return where the iteration that starts now begins: a restored place, else the next epoch."""
        if self.begun:
            self.epoch, self.batch = self.epoch + 1, 0
        self.begun = True
        return self.epoch, self.batch


class ResumableLoader:
    """An iterable over batches that begins where ``position`` says, decided when the first batch is asked for.

    It is deliberately no ``DataLoader``: Lightning would replace the sampler of one. ``len()`` is that of a whole
    epoch, as Lightning expects of a loader that resumes.
    """

    def __init__(self, loader: DataLoader, sampler: ResumableSampler, position: Callable[[], TrainPosition]) -> None:
        # The sampler stays private: Lightning would take a ``sampler`` or ``dataset`` as leave to rebuild the loader.
        self.loader, self._sampler, self._position = loader, sampler, position

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        # A generator: Lightning calls iter() before it has restored its state, and nothing below runs until next().
        position = self._position()
        epoch, batch = position.begin()
        assert self.loader.batch_size is not None
        self._sampler.set_position(epoch, batch * self.loader.batch_size)
        for item in _plain_errors(self.loader):
            position.batch += 1
            yield item

    @property
    def _iterator(self) -> Any:
        # Lightning shuts the workers down through this attribute at the end of training.
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        self.loader._iterator = value

    def state_dict(self) -> dict[str, Any]:
        """Empty: the data module keeps the position. Being there tells Lightning that the loader resumes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do, see :meth:`state_dict`."""


class EvaluationLoader:
    """All samples once, in order (of ``LengthBatches``, where the loader has them); with several processes, repeated
    samples carry ``batch["padding"]`` True."""

    def __init__(self, loader: DataLoader, sampler: ResumableSampler | LengthBatches) -> None:
        self.loader, self._sampler = loader, sampler

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._sampler, LengthBatches):
            for number, batch in enumerate(_plain_errors(self.loader)):
                if self._sampler.world_size > 1:
                    rows = len(batch["input_ids"])
                    batch["padding"] = torch.full((rows,), self._sampler.is_padding(number))
                yield batch
            return
        position = 0
        assert self.loader.batch_size is not None
        for batch in _plain_errors(self.loader):
            if self._sampler.world_size > 1:
                size = min(self.loader.batch_size, len(self._sampler) - position)
                padding = [self._sampler.is_padding(position + row) for row in range(size)]
                batch["padding"] = torch.tensor(padding)
                position += size
            yield batch


class ResumableDataModule(pl.LightningDataModule):
    """Base of every data module: builds the loaders, and restarts training in mid-epoch bit for bit.

    A subclass implements ``setup(stage)``, which sets ``self.train_set``, ``self.val_set``, ``self.test_set`` and
    ``self.predict_set`` (those that ``stage`` needs): map-style datasets with ``__len__`` whose ``__getitem__`` takes
    a :class:`SampleKey`; and ``collate(samples)``, which makes a batch dict of a list of samples. ``val_set`` and
    ``test_set`` may be a dict from name to dataset; the names are then in ``val_names`` and ``test_names``. A dataset
    with ``move(device)``, which says whether it did, is kept on the device of the training.

    Training is shuffled by ``(seed, epoch)`` and keeps the last, incomplete batch. Evaluation and prediction go in
    order and ask for ``SampleKey(0, index)``.

    Args:
        batch_size: samples per step and process in training.
        eval_batch_size: samples per batch in evaluation and prediction; ``batch_size`` where None.
        num_workers: loader processes; 0 loads in the training process.
        seed: of the order and of the augmentation.
    """

    def __init__(
        self, *, batch_size: int = 32, eval_batch_size: int | None = None, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise UserError(f"batch_size and eval_batch_size must be at least 1, got {batch_size}, {eval_batch_size}")
        if num_workers < 0:
            raise UserError(f"num_workers must be at least 0, got {num_workers}")
        self.batch_size = batch_size
        # Fixed now, so that length warm-up, which changes batch_size, leaves the evaluation alone.
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.train_set: Any = None
        self.val_set: Any = None
        self.test_set: Any = None
        self.predict_set: Any = None
        self.stage: tuple[int, int] | None = None
        self._train_position = TrainPosition()
        self._restored: dict[str, Any] | None = None

    def collate(self, samples: list[Any]) -> dict[str, Any]:
        """Make a batch dict of a list of samples; runs in the loader processes."""
        raise NotImplementedError(f"{type(self).__name__} must implement collate(samples)")

    def evaluation_lengths(self, dataset: Any) -> np.ndarray | None:
        """Return the length of each sample of an evaluation set whose batches are to hold samples of one length each,
        None (the default) where they follow the order of the dataset.

        For models whose result for a sample depends on how far it is padded. ``collate`` should then give ``"index"``,
        by which predictions are put back in order.
        """
        return None

    def set_stage(self, seqlen: int, batch_size: int) -> None:
        """Train from the next epoch on with samples of ``seqlen`` tokens in batches of ``batch_size``.

        The base calls ``train_set.set_seqlen(seqlen)``; a subclass that needs more extends this method. The trainer
        must rebuild the loaders each epoch (``reload_dataloaders_every_n_epochs=1``).

        Raises:
            UserError: the train set cannot change its length.
        """
        self.stage = (seqlen, batch_size)
        self.batch_size = batch_size
        self._apply_stage()

    def _apply_stage(self) -> None:
        if self.stage is None or self.train_set is None:
            return
        set_seqlen = getattr(self.train_set, "set_seqlen", None)
        if set_seqlen is None:
            name = type(self.train_set).__name__
            raise UserError(f"sequence-length warm-up needs a train set with set_seqlen(seqlen), which {name} lacks")
        set_seqlen(self.stage[0])

    # Loaders

    def train_dataloader(self) -> ResumableLoader:
        self._require(self.train_set, "train_set")
        self._apply_stage()
        progress = self._batch_progress()
        if self._restored is None and progress is not None and progress.total.ready == 0:
            # A new run of fit; a data module used by an earlier one does not continue its epochs.
            self._train_position = TrainPosition()
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        sampler = self._sampler(self.train_set, shuffle=not overfit)
        loader = self._loader(self.train_set, sampler, self.batch_size, persistent=True)
        return ResumableLoader(loader, sampler, lambda: self._position_of(sampler))

    def val_dataloader(self) -> list[EvaluationLoader]:
        if self.val_set is None:
            return []
        return [self._evaluation_loader(dataset) for dataset in _named(self.val_set, "val").values()]

    def test_dataloader(self) -> list[EvaluationLoader]:
        self._require(self.test_set, "test_set")
        return [self._evaluation_loader(dataset) for dataset in _named(self.test_set, "test").values()]

    def predict_dataloader(self) -> EvaluationLoader:
        self._require(self.predict_set, "predict_set")
        return self._evaluation_loader(self.predict_set)

    @property
    def val_names(self) -> list[str]:
        """Names of the validation sets, in the order of their loaders."""
        return [] if self.val_set is None else list(_named(self.val_set, "val"))

    @property
    def test_names(self) -> list[str]:
        """Names of the test sets, in the order of their loaders."""
        return [] if self.test_set is None else list(_named(self.test_set, "test"))

    def _evaluation_loader(self, dataset: Any) -> EvaluationLoader:
        lengths = self.evaluation_lengths(dataset)
        if lengths is None:
            sampler = self._sampler(dataset, shuffle=False)
            return EvaluationLoader(self._loader(dataset, sampler, self.eval_batch_size, persistent=False), sampler)
        rank, world_size = self._place()
        batches = LengthBatches(lengths, self.eval_batch_size, rank=rank, world_size=world_size)
        return EvaluationLoader(self._loader(dataset, batches, None, persistent=False), batches)

    def _place(self) -> tuple[int, int]:
        """Return the rank of this process, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _sampler(self, dataset: Any, *, shuffle: bool) -> ResumableSampler:
        rank, world_size = self._place()
        return ResumableSampler(len(dataset), seed=self.seed, shuffle=shuffle, rank=rank, world_size=world_size)

    def _loader(
        self,
        dataset: Any,
        sampler: ResumableSampler | LengthBatches,
        batch_size: int | None,
        *,
        persistent: bool,
    ) -> DataLoader:
        device = None if self.trainer is None else self.trainer.strategy.root_device
        # A data set of one small array may lie on the device whole: its batches are made there, with nothing to pin.
        move = getattr(dataset, "move", None)
        there = device is not None and self.num_workers == 0 and move is not None and move(device)
        how: Any = {"batch_sampler": sampler} if batch_size is None else {"batch_size": batch_size, "sampler": sampler}
        return DataLoader(
            dataset,
            **how,
            num_workers=self.num_workers,
            collate_fn=self.collate,
            persistent_workers=persistent and self.num_workers > 0,
            worker_init_fn=functools.partial(_start_worker, parent=os.getpid()),
            pin_memory=device is not None and device.type == "cuda" and not there,
            # A loader draws a seed for its workers; from the global generator that would change dropout on a restart.
            generator=torch.Generator(),
        )

    def _require(self, dataset: Any, name: str) -> None:
        if dataset is None:
            raise UserError(f"{type(self).__name__} has no {name}: its setup() set none for this verb")
        if not isinstance(dataset, Mapping) and len(dataset) == 0:
            raise UserError(f"the {name} of {type(self).__name__} holds no sample")

    # Restart

    def _batch_progress(self) -> Any:
        return None if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress

    def state_dict(self) -> dict[str, Any]:
        """Return the place of training in plain numbers: batches trained on, not batches that workers prefetched."""
        epoch, batch = self._train_position.epoch, self._train_position.batch
        progress = self._batch_progress()
        if self.trainer is not None and progress is not None:
            batch -= progress.current.ready - progress.current.processed
            if batch >= self.trainer.num_training_batches:
                epoch, batch = epoch + 1, 0
        return {
            "epoch": epoch,
            "batch": batch,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "world_size": 1 if self.trainer is None else self.trainer.world_size,
            "samples": 0 if self.train_set is None else len(self.train_set),
            "stage": None if self.stage is None else list(self.stage),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue training at a saved place; evaluation and prediction take no notice of it."""
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return
        self._restored = dict(state_dict)
        self._train_position = TrainPosition(state_dict["epoch"], state_dict["batch"])
        if state_dict["stage"] is not None:
            self.set_stage(*state_dict["stage"])

    def _position_of(self, sampler: ResumableSampler) -> TrainPosition:
        """Return the place to begin at, after checking that a restored one still means the same samples."""
        if self._restored is not None and self._restored["batch"] > 0:
            now = {"seed": self.seed, "batch_size": self.batch_size, "world_size": sampler.world_size}
            now["samples"] = sampler.length
            for name, value in now.items():
                if self._restored[name] != value:
                    raise UserError(
                        f"the checkpoint was written in mid-epoch with {name} {self._restored[name]}, but this run has "
                        f"{value}: keep it, or resume from a checkpoint written at the end of an epoch"
                    )
        self._restored = None
        return self._train_position

    def __getstate__(self) -> dict[str, Any]:
        # Loader processes that are spawned receive ``collate`` and with it this object: they need neither of these.
        return self.__dict__ | {"trainer": None} | dict.fromkeys(("train_set", "val_set", "test_set", "predict_set"))


def _plain_errors(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches; a mistake of the user that a loader process found is told in its one line, as without one."""
    try:
        yield from batches
    except UserError as error:
        if not str(error).startswith("Caught "):
            raise
        # torch puts the traceback of the process before the message.
        line = str(error).rstrip().splitlines()[-1]
        raise UserError(line.partition(f"{UserError.__name__}: ")[2] or line) from error


def _start_worker(worker: int, *, parent: int) -> None:
    """Let Ctrl-C reach the training process alone, which needs its workers to finish the step; never outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent:
        # Killed while this worker was starting. torch looks for the parent's end only from its own start on.
        os._exit(1)


def _named(datasets: Any, default: str) -> dict[str, Any]:
    return dict(datasets) if isinstance(datasets, Mapping) else {default: datasets}
