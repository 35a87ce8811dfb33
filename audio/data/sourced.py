"""What the data modules of audio have in common: where recordings come from, their format, and their splits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ...core.errors import UserError, nearest
from ...core.training.sourced_data import SourcedDataModule
from .files import AudioFormat, read_info
from .manifest import MANIFEST_ENDINGS, Recordings, make_recordings, read_folder, read_manifest
from .sources import COLLECTIONS, read_collection
from .splits import SplitKind, split_rows

logger = logging.getLogger(__name__)


class RecordingsDataModule(SourcedDataModule):
    """Recordings of a known collection, a folder or manifests, checked before training and split.

    A subclass says in ``make_dataset`` what a sample is, and in ``needs_labels`` whether recordings have classes.

    Args:
        dataset: ``"spoken_digits"`` (packaged; with ``folder`` the whole Free Spoken Digit Dataset), or, in ``folder``,
            ``"speech_commands_35"``, ``"speech_commands_10"`` or ``"speech_commands_09"``, with their official splits.
        folder: folder of audio files, in class folders where there are classes (``train/CLASS/…`` with splits).
        manifest: CSV, TSV or JSONL file with the columns ``path``, and where wanted ``label``, ``split``, ``name``,
            ``start``, ``frames``, ``speaker``.
        val_manifest: recordings to validate on; then ``manifest`` is for training alone.
        test_manifest: recordings to test on; likewise.
        predict: what to predict: a file, a folder, a manifest, or a list of files.
        sample_rate: in hertz; that of the collection or of the first file where None.
        channels: of a recording.
        resample: resample files of another rate, with an anti-aliasing filter.
        mixdown: average the channels of a file where one is wanted.
        min_bits: refuse files with fewer bits per sample.
        split: ``"given"``, ``"random"`` or ``"sorted"`` (as listed; a folder by path); where None, given
            where there are given ones and random otherwise.
        val_fraction: share held out for validation where no validation recordings are given.
        test_fraction: share held out for the test, with the splits random and sorted.
        hold_out_speaker: test on all recordings of this speaker, train on all of the others.
        limit_train: use only this many training recordings, the first of an order shuffled by ``seed``.
        batch_size: samples per step and process in training.
        eval_batch_size: samples per batch in evaluation; ``batch_size`` where None.
        num_workers: loader processes.
        seed: of the order, the augmentation and random splits.
    """

    needs_labels = False

    samples, source = "data", "a manifest or folder that has some"
    predictable = "a file, a folder or a manifest"

    def __init__(
        self,
        dataset: str | None = None,
        folder: str | None = None,
        manifest: str | None = None,
        val_manifest: str | None = None,
        test_manifest: str | None = None,
        predict: str | list[str] | None = None,
        sample_rate: int | None = None,
        channels: int = 1,
        resample: bool = False,
        mixdown: bool = False,
        min_bits: int | None = None,
        split: SplitKind | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        hold_out_speaker: str | None = None,
        limit_train: int | None = None,
        *,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        self.dataset, self.folder, self.manifest = dataset, folder, manifest
        self.val_manifest, self.test_manifest, self.predict = val_manifest, test_manifest, predict
        self.split, self.val_fraction, self.test_fraction = split, val_fraction, test_fraction
        self.hold_out_speaker, self.limit_train = hold_out_speaker, limit_train
        self._check_source()
        rate = COLLECTIONS[dataset] if sample_rate is None and dataset is not None else sample_rate
        self.format = AudioFormat(rate, channels, resample, mixdown, min_bits)
        self._splits: dict[str, Recordings] | None = None
        #: Classes of the training recordings, before ``limit_train``.
        self._train_labels: list[str] = []

    def _check_source(self) -> None:
        given = [name for name in ("dataset", "manifest") if getattr(self, name) is not None]
        if self.folder is not None and self.dataset is None:
            given.append("folder")
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} exclude each other; give one")
        if not given and self.test_manifest is None and self.val_manifest is None and self.predict is None:
            raise UserError("no data: give dataset, folder, manifest or predict")
        if self.dataset is not None and self.dataset not in COLLECTIONS:
            raise UserError(f"unknown dataset {self.dataset!r} ({nearest(self.dataset, COLLECTIONS)})")
        if self.split is not None and self.split not in get_args(SplitKind):
            raise UserError(f"split={self.split!r} is unknown ({nearest(self.split, get_args(SplitKind))})")
        for name in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError("val_fraction and test_fraction leave nothing to train on; lower them")
        if self.limit_train is not None and self.limit_train < 1:
            raise UserError(f"limit_train={self.limit_train} must be at least 1")

    @property
    def sample_rate(self) -> int:
        """Rate of the samples in hertz; looks at the first recording where none was given."""
        if self.format.sample_rate is None:
            recordings = next((part for part in self.splits().values() if len(part)), None)
            if recordings is None:
                recordings = self.read_predict()
            rate = read_info(recordings.paths[0]).sample_rate
            self.format = replace(self.format, sample_rate=rate)
        assert self.format.sample_rate is not None
        return self.format.sample_rate

    def __getstate__(self) -> dict[str, Any]:
        # Loader processes need only ``collate``; see the base class.
        return super().__getstate__() | {"_splits": None}

    def splits(self) -> dict[str, Recordings]:
        """Return the recordings of ``"train"``, ``"val"`` and ``"test"``, those that there are.

        Raises:
            UserError: something is wrong with the folder or the manifest.
        """
        if self._splits is None:
            self._splits = self._read_splits()
        return self._splits

    def _read_splits(self) -> dict[str, Recordings]:
        result: dict[str, Recordings] = {}
        given = {"val": self.val_manifest, "test": self.test_manifest}
        separate = {name: path for name, path in given.items() if path is not None}
        whole = self._read_source()
        if whole is not None:
            rows = split_rows(
                whole,
                self.split,
                val_fraction=0.0 if "val" in separate else self.val_fraction,
                test_fraction=0.0 if "test" in separate else self.test_fraction,
                seed=self.seed,
                hold_out_speaker=self.hold_out_speaker,
            )
            if whole.labels is not None:
                self._train_labels = sorted(set(whole.labels[rows["train"]]))
            if self.limit_train is not None:
                order = np.random.default_rng(self.seed).permutation(rows["train"])
                rows["train"] = np.sort(order[: self.limit_train])
            result = {name: whole.select(chosen) for name, chosen in rows.items() if len(chosen)}
        for name, path in separate.items():
            result[name] = self._read_manifest(path)
        counts = ", ".join(f"{len(part)} {name}" for name, part in result.items())
        if result:
            logger.info("%s: recordings: %s", next(iter(result.values())).origin, counts)
        return result

    def _read_source(self) -> Recordings | None:
        if self.dataset is not None:
            return read_collection(self.dataset, self.folder)
        if self.folder is not None:
            return read_folder(self.folder, labelled=self.needs_labels)
        return None if self.manifest is None else self._read_manifest(self.manifest)

    def _read_manifest(self, path: str) -> Recordings:
        return read_manifest(path, label_column="label" if self.needs_labels else None)

    def read_predict(self) -> Recordings:
        assert self.predict is not None
        if isinstance(self.predict, str):
            place = Path(self.predict).expanduser()
            if place.is_dir():
                return read_folder(place, labelled=False)
            if place.suffix.lower() in MANIFEST_ENDINGS:
                return read_manifest(place)
        files = [self.predict] if isinstance(self.predict, str) else list(self.predict)
        if not files:
            raise UserError("predict: the list is empty; name at least one file")
        return list_files(files)

    def checked(self, recordings: Recordings, name: str) -> Any:
        """Return the dataset of a split; the header of each recording has been looked at."""
        assert self.sample_rate  # is settled, before any file is compared with it
        return self.make_dataset(recordings, recordings.check(self.format), name)

    def longest_sample(self) -> int | None:
        """Return the frames of the longest sample of the sets that are set up."""
        longest = []
        for name in ("train", "val", "test", "predict"):
            dataset = getattr(self, f"{name}_set")
            if dataset is not None:
                windows, length = getattr(dataset, "windows", None), getattr(dataset, "length", None)
                frames = windows.frames if windows is not None else dataset.lengths
                longest.append(int(frames.max()) if length is None else length)
        multiple = getattr(self, "pad_multiple", 1)
        return -(-max(longest) // multiple) * multiple if longest else None

    def make_dataset(self, recordings: Recordings, lengths: np.ndarray, name: str) -> Any:
        """Return the dataset of a split (``"train"``, ``"val"``, ``"test"`` or ``"predict"``).

        Args:
            recordings: of the split.
            lengths: int64, frames of each at the model's rate.
            name: of the split.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement make_dataset(recordings, lengths, name)")


def list_files(files: Sequence[str | Path]) -> Recordings:
    """Return recordings of files, named as they are given."""
    return make_recordings(
        str(files[0]), [Path(file).expanduser().absolute() for file in files], names=[str(file) for file in files]
    )
