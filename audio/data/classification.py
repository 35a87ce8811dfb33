"""Classification of recordings: raw waveforms, or mel features, with the class of each."""

from __future__ import annotations

import logging
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from ...core.errors import UserError, nearest
from ...core.training.data import SampleKey, sample_generator
from ..features import MelFeatures, SpecAugment
from ..resampling import decimate
from .augmentation import Augmentation
from .files import AudioFormat
from .manifest import Recordings
from .sourced import RecordingsDataModule

logger = logging.getLogger(__name__)

Normalization = Literal["none", "peak", "rms", "standard"]
Padding = Literal["end", "center"]


class ClipDataset(Dataset):
    """Recordings as windows of samples; see `AudioClassificationDataModule` for the arguments.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"samples": float32 (frames, channels or mels),
    "begin": int, "end": int}``, between which the recording lies, with ``"label"`` where there are labels, and
    ``"name"`` and ``"index"`` where ``named``. A sample is a pure function of ``(seed, key)``.
    """

    def __init__(
        self,
        recordings: Recordings,
        lengths: np.ndarray,
        labels: np.ndarray | None,
        wanted: AudioFormat,
        *,
        length: int | None,
        random: bool,
        padding: Padding = "end",
        normalize: Normalization = "none",
        augmentation: Augmentation | None = None,
        decimation: int = 1,
        features: MelFeatures | None = None,
        spec_augment: SpecAugment | None = None,
        named: bool = False,
        seed: int = 0,
    ) -> None:
        assert wanted.sample_rate is not None
        self.recordings, self.lengths, self.labels, self.wanted = recordings, lengths, labels, wanted
        self.length, self.random, self.padding, self.normalize = length, random, padding, normalize
        self.augmentation, self.decimation = augmentation, decimation
        self.features, self.spec_augment = features, spec_augment
        self.named, self.seed, self.sample_rate = named, seed, wanted.sample_rate

    def __len__(self) -> int:
        return len(self.recordings)

    def set_seqlen(self, seqlen: int) -> None:
        """Take windows of ``seqlen`` frames from now on: for sequence-length warm-up."""
        self.length = seqlen

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        generator = sample_generator(self.seed, key)
        samples = self._crop(key.index, generator)
        samples = normalized(samples, self.normalize)
        begin, end = 0, len(samples)
        if self.length is not None and end < self.length:
            begin = (self.length - end) // 2 if self.padding == "center" else 0
            window = np.zeros((self.length, samples.shape[1]), dtype=np.float32)
            window[begin : begin + end] = samples
            samples, end = window, begin + end
        if self.augmentation is not None:
            samples, begin, end = self.augmentation(samples, self.sample_rate, generator, begin, end)
        if self.decimation > 1:
            samples = np.ascontiguousarray(decimate(samples, self.decimation))
            begin, end = -(-begin // self.decimation), -(-end // self.decimation)
        if self.features is not None:
            samples = self.features(samples, self.sample_rate // self.decimation)
            begin, end = self.features.span(begin, end)
            if self.spec_augment is not None:
                samples = self.spec_augment(samples, int(generator.integers(2**62)))
        sample: dict[str, Any] = {"samples": samples, "begin": begin, "end": end}
        if self.labels is not None:
            sample["label"] = int(self.labels[key.index])
        if self.named:
            sample |= {"name": str(self.recordings.names[key.index]), "index": key.index}
        return sample

    def _crop(self, index: int, generator: np.random.Generator) -> np.ndarray:
        room = 0 if self.length is None else int(self.lengths[index]) - self.length
        if room <= 0:
            return self.recordings.read(index, self.wanted)[0]
        start = int(generator.integers(room + 1)) if self.random else room // 2
        return self.recordings.read(index, self.wanted, start=start, frames=self.length)[0]


class AudioClassificationDataModule(RecordingsDataModule):
    """Recordings with a class.

    A batch is ``{"input_ids": float32 (batch, frames, channels), "mask": bool (batch, frames), True at the recording
    and False at padding, "labels": int64 (batch,)}``; in prediction it also has ``"name"`` (list of str) and
    ``"index"`` (int64), and labels only if they are known. ``"mask"`` is absent without ``mask_padding``. With
    ``features`` there are mel frames in place of frames and mels in place of channels.

    Args:
        length: frames of a window at the model's rate: shorter recordings are padded with silence, longer ones cropped,
            at random in training and in the middle otherwise. Where None a batch is as long as its longest recording.
        padding: of windows: silence at the ``"end"`` or on both sides (``"center"``).
        mask_padding: tell the model what is padding; the published recipes do not.
        normalize: of each crop: ``"none"``, to ``"peak"`` 1, to ``"rms"`` 0.1, or to mean 0 and deviation 1
            (``"standard"``).
        augmentation: of training recordings.
        decimation: keep every so-many-th frame without a filter, after all else, as the published tests at other rates
            do; the model then runs with ``rate=decimation``.
        features: log-mel frames in place of samples.
        spec_augment: masks of training features.
        class_names: names of the classes in the order of their indices; the sorted labels of the training recordings
            where None.
        length_buckets: put only recordings of one length into a batch of evaluation, where ``length`` is None, so that
            what is said of one does not depend on how far its neighbours pad it.
        options: those of `RecordingsDataModule`.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the files.
    """

    needs_labels = True

    def __init__(
        self,
        length: int | None = None,
        padding: Padding = "end",
        mask_padding: bool = True,
        normalize: Normalization = "none",
        augmentation: Augmentation | None = None,
        decimation: int = 1,
        features: MelFeatures | None = None,
        spec_augment: SpecAugment | None = None,
        class_names: list[str] | None = None,
        length_buckets: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.length, self.padding, self.mask_padding, self.normalize = length, padding, mask_padding, normalize
        self.augmentation, self.decimation = augmentation, decimation
        self.features, self.spec_augment, self.length_buckets = features, spec_augment, length_buckets
        for name, value in (("length", length), ("decimation", decimation)):
            if value is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1")
        for name, allowed in (("padding", get_args(Padding)), ("normalize", get_args(Normalization))):
            chosen = getattr(self, name)
            if chosen not in allowed:
                raise UserError(f"{name}={chosen!r} is unknown ({nearest(chosen, allowed)})")
        if spec_augment is not None and features is None:
            raise UserError("spec_augment masks features; set features too")
        if class_names is not None and len(set(class_names)) < len(class_names):
            raise UserError("class_names: a name occurs twice; every class needs its own")
        self._class_names = class_names

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their indices.

        Raises:
            UserError: there is neither training data nor ``class_names``, or the data has one class.
        """
        if self._class_names is None:
            train, names = self.splits().get("train"), self._train_labels
            if train is None or not names:
                raise UserError("the classes are unknown without training data; give it or class_names")
            if len(names) < 2:
                raise UserError(f"{train.origin}: only one class, {names[0]!r}; classification needs at least two")
            self._class_names = names
        return self._class_names

    @property
    def num_classes(self) -> int:
        """Number of classes, as `class_names`."""
        return len(self.class_names)

    def make_dataset(self, recordings: Recordings, lengths: np.ndarray, name: str) -> ClipDataset:
        """Return the clips of a split, with the index of each one's class."""
        training, predicting = name == "train", name == "predict"
        known = recordings.labels is not None and (not predicting or self._class_names is not None)
        if self.length is not None and (cropped := int((lengths > self.length).sum())):
            logger.info(
                "%s: %d of %d recordings are longer than %d frames and cropped",
                name,
                cropped,
                len(lengths),
                self.length,
            )
        return ClipDataset(
            recordings,
            lengths,
            class_indices(recordings, self.class_names) if known else None,
            self.format,
            length=self.length,
            random=training,
            padding=self.padding,
            normalize=self.normalize,
            augmentation=self.augmentation if training else None,
            decimation=self.decimation,
            features=self.features,
            spec_augment=self.spec_augment if training else None,
            named=predicting,
            seed=self.seed,
        )

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad samples to one batch."""
        longest = max(len(sample["samples"]) for sample in samples)
        inputs = np.zeros((len(samples), longest, samples[0]["samples"].shape[1]), dtype=np.float32)
        mask = np.zeros((len(samples), longest), dtype=bool)
        for row, sample in enumerate(samples):
            inputs[row, : len(sample["samples"])] = sample["samples"]
            mask[row, sample["begin"] : sample["end"]] = True
        batch: dict[str, Any] = {"input_ids": torch.from_numpy(inputs)}
        if self.mask_padding:
            batch["mask"] = torch.from_numpy(mask)
        if "label" in samples[0]:
            batch["labels"] = torch.tensor([sample["label"] for sample in samples], dtype=torch.int64)
        if "name" in samples[0]:
            batch["name"] = [sample["name"] for sample in samples]
            batch["index"] = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return batch

    def evaluation_lengths(self, dataset: ClipDataset) -> np.ndarray | None:
        """Return the frames of each recording, None where batches may mix lengths."""
        return dataset.lengths if self.length is None and self.length_buckets else None


def class_indices(recordings: Recordings, names: list[str]) -> np.ndarray:
    """Return the class of each recording as an index into ``names``, int64.

    Raises:
        UserError: a label is not among the names; says where.
    """
    assert recordings.labels is not None
    index_of = {name: index for index, name in enumerate(names)}
    result = np.empty(len(recordings), dtype=np.int64)
    for row, label in enumerate(recordings.labels):
        if label not in index_of:
            raise UserError(f"{recordings.where(row)}: the model knows no label {label!r} ({nearest(label, names)})")
        result[row] = index_of[label]
    return result


def normalized(samples: np.ndarray, how: Normalization) -> np.ndarray:
    """Return ``samples`` (frames, channels) on a common level; see `AudioClassificationDataModule`. Silence stays."""
    if how == "none":
        return samples
    wide = samples.astype(np.float64)
    if how == "standard":
        wide = wide - wide.mean()
    scale = np.abs(wide).max() if how == "peak" else np.sqrt(np.mean(wide**2))
    if scale == 0:
        return wide.astype(np.float32)
    return (wide * ((0.1 if how == "rms" else 1.0) / scale)).astype(np.float32)
