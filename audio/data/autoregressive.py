"""Autoregressive modelling of waveforms: each sample, as a code, from those before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...core.errors import UserError
from ...core.training.data import SampleKey, sample_generator
from ...core.training.metrics import IGNORED
from ..quantization import Quantizer, autoregressive_pair
from .augmentation import Augmentation
from .files import AudioFormat
from .manifest import Recordings
from .sourced import RecordingsDataModule
from .windows import Windows, list_windows


class CodeDataset(Dataset):
    """Windows of recordings as codes; see `AudioTokenDataModule` for the arguments.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"input_ids", "labels"}``, int64 (frames,), with
    ``"name"``, ``"index"`` and ``"start"`` (first frame in its recording) where ``named``.
    """

    def __init__(
        self,
        recordings: Recordings,
        lengths: np.ndarray,
        wanted: AudioFormat,
        quantizer: Quantizer,
        *,
        length: int | None,
        random: bool,
        augmentation: Augmentation | None = None,
        named: bool = False,
        seed: int = 0,
    ) -> None:
        assert wanted.sample_rate is not None
        self.recordings, self.lengths, self.wanted, self.quantizer = recordings, lengths, wanted, quantizer
        self.random, self.augmentation, self.named, self.seed = random, augmentation, named, seed
        self.sample_rate = wanted.sample_rate
        self.windows: Windows
        self.set_seqlen(length)

    def set_seqlen(self, seqlen: int | None) -> None:
        """Take windows of ``seqlen`` frames from now on."""
        self.windows = list_windows(self.lengths, seqlen, random=self.random)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        generator = sample_generator(self.seed, key)
        row, frames = int(self.windows.row[key.index]), int(self.windows.frames[key.index])
        start = self.windows.start(key.index, generator)
        samples, _ = self.recordings.read(row, self.wanted, start=start, frames=frames)
        if self.augmentation is not None:
            samples, *_ = self.augmentation(samples, self.sample_rate, generator)
        inputs, labels = autoregressive_pair(self.quantizer.encode(samples[:, 0]), self.quantizer)
        sample: dict[str, Any] = {"input_ids": inputs, "labels": labels}
        if self.named:
            sample |= {"name": str(self.recordings.names[row]), "index": key.index, "start": start}
        return sample


class AudioTokenDataModule(RecordingsDataModule):
    """Windows of recordings of one channel as codes, for next-sample prediction.

    A batch is ``{"input_ids": int64 (batch, frames), "labels": int64 (batch, frames)}``. The input is the window's
    codes one later, beginning with the code of silence (``quantizer.zero``); labels are the codes, -100 at padding,
    whose input is silence. Padding is at the end, where it changes nothing before it in a causal model; every sample of
    a recording is a label once in an evaluation. In prediction there are also ``"name"`` (list of str), ``"index"``
    and ``"start"`` (int64 (batch,)).

    Args:
        length: frames of a training window: a longer recording gives several, at random places each epoch; whole
            recordings where None.
        eval_length: frames of a window in evaluation, one after the other; whole recordings where None.
        quantizer: how samples become codes; μ-law of 8 bits over a fixed range where None.
        pad_multiple: pad batches to a multiple of so many frames, for models that pool.
        augmentation: of training windows.
        options: those of `RecordingsDataModule`; classes play no part.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the files.
    """

    def __init__(
        self,
        length: int | None = None,
        eval_length: int | None = None,
        quantizer: Quantizer | None = None,
        pad_multiple: int = 1,
        augmentation: Augmentation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.length, self.eval_length, self.pad_multiple = length, eval_length, pad_multiple
        self.quantizer = Quantizer() if quantizer is None else quantizer
        self.augmentation = augmentation
        for name in ("length", "eval_length", "pad_multiple"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1")
        if self.format.channels != 1:
            raise UserError("codes are of one channel; leave channels at 1, with mixdown where files have more")

    @property
    def vocab_size(self) -> int:
        """Number of codes."""
        return self.quantizer.levels

    def make_dataset(self, recordings: Recordings, lengths: np.ndarray, name: str) -> CodeDataset:
        """Return the windows of a split."""
        training = name == "train"
        return CodeDataset(
            recordings,
            lengths,
            self.format,
            self.quantizer,
            length=self.length if training else self.eval_length,
            random=training,
            augmentation=self.augmentation if training else None,
            named=name == "predict",
            seed=self.seed,
        )

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad samples to one batch."""
        longest = max(len(sample["labels"]) for sample in samples)
        longest = -(-longest // self.pad_multiple) * self.pad_multiple
        inputs = np.full((len(samples), longest), self.quantizer.zero, dtype=np.int64)
        labels = np.full((len(samples), longest), IGNORED, dtype=np.int64)
        for row, sample in enumerate(samples):
            inputs[row, : len(sample["labels"])] = sample["input_ids"]
            labels[row, : len(sample["labels"])] = sample["labels"]
        batch: dict[str, Any] = {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}
        if "name" in samples[0]:
            batch["name"] = [sample["name"] for sample in samples]
            for name in ("index", "start"):
                batch[name] = torch.tensor([sample[name] for sample in samples], dtype=torch.int64)
        return batch
