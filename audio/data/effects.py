"""Pairs of a dry and a processed recording with the controls of the effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...core.errors import UserError, nearest
from ...core.training.data import SampleKey, sample_generator
from .files import AudioFormat
from .manifest import MANIFEST_ENDINGS, Recordings, read_manifest
from .sourced import RecordingsDataModule
from .windows import Windows, list_windows


class PairDataset(Dataset):
    """Windows of pairs of recordings.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"input_ids", "labels"}``, float32 (frames,
    channels), ``"controls"``, float32 (controls,), and ``"name"`` and ``"index"`` where ``named``. A sample is a pure
    function of ``(seed, key)``.
    """

    def __init__(
        self,
        inputs: Recordings,
        lengths: np.ndarray,
        wanted: AudioFormat,
        *,
        length: int | None,
        random: bool,
        named: bool = False,
        seed: int = 0,
    ) -> None:
        self.inputs, self.lengths, self.wanted = inputs, lengths, wanted
        self.random, self.named, self.seed = random, named, seed
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
        inputs, _ = self.inputs.read(row, self.wanted, start=start, frames=frames)
        inputs, labels, controls = self.pair(inputs, row, start, generator)
        sample: dict[str, Any] = {"input_ids": inputs, "labels": labels, "controls": controls}
        if self.named:
            sample |= {"name": str(self.inputs.names[row]), "index": key.index}
        return sample

    def pair(
        self, inputs: np.ndarray, row: int, start: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return input, target (both float32 (frames, channels)) and controls (float32) of a window."""
        raise NotImplementedError


class RecordedPairs(PairDataset):
    """Pairs whose targets are files too; ``controls`` is float32 (recordings, controls)."""

    def __init__(
        self, inputs: Recordings, targets: Recordings, controls: np.ndarray, *args: Any, **options: Any
    ) -> None:
        super().__init__(inputs, *args, **options)
        self.targets, self.controls = targets, controls

    def pair(
        self, inputs: np.ndarray, row: int, start: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        targets, _ = self.targets.read(row, self.wanted, start=start, frames=len(inputs))
        return inputs, targets, self.controls[row]


class EffectPairs:
    """Mixed into the data modules of effects: how a batch is made."""

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad samples to one batch."""
        longest = max(len(sample["input_ids"]) for sample in samples)
        batch: dict[str, Any] = {}
        for name in ("input_ids", "labels"):
            padded = np.zeros((len(samples), longest, samples[0][name].shape[1]), dtype=np.float32)
            for row, sample in enumerate(samples):
                padded[row, : len(sample[name])] = sample[name]
            batch[name] = torch.from_numpy(padded)
        frames = torch.tensor([len(sample["input_ids"]) for sample in samples])
        batch["mask"] = torch.arange(longest) < frames[:, None]
        batch["controls"] = torch.from_numpy(np.stack([sample["controls"] for sample in samples]))
        if "name" in samples[0]:
            batch["name"] = [sample["name"] for sample in samples]
            batch["index"] = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return batch


class EffectDataModule(EffectPairs, RecordingsDataModule):
    """Pairs of files: what went into an effect and what came out, with its controls (as SignalTrain LA2A).

    A batch is ``{"input_ids": float32 (batch, frames, channels), "labels": the same, "mask": bool (batch, frames),
    "controls": float32 (batch, controls)}``, padded at the end where recordings are shorter than a window.

    Args:
        manifest: CSV, TSV or JSONL file with the columns ``input`` and ``target`` (files), those of the controls, and
            where wanted ``split``, ``name``, ``start`` and ``frames``.
        controls: the columns of the controls, numbers.
        control_ranges: name of a control to (least, greatest), 0 and 1 where not named; it is scaled to 0 … 1.
        length: frames of a training window, at random places; whole recordings where None.
        eval_length: frames of a window in evaluation, one after the other; whole recordings where None.
        options: those of `RecordingsDataModule`.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the files, or the two of a pair differ in
            length.
    """

    def __init__(
        self,
        manifest: str,
        controls: list[str] | None = None,
        control_ranges: dict[str, tuple[float, float]] | None = None,
        length: int | None = None,
        eval_length: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(manifest=manifest, **options)
        self.controls, self.control_ranges = list(controls or []), control_ranges or {}
        self.length, self.eval_length = length, eval_length
        check_lengths(length, eval_length)
        for name, (low, high) in self.control_ranges.items():
            if name not in self.controls:
                raise UserError(f"control_ranges: {name!r} is no control ({nearest(name, self.controls)})")
            if not high > low:
                raise UserError(f"control_ranges: {name!r} must have its least value before its greatest")

    @property
    def num_controls(self) -> int:
        """Number of controls."""
        return len(self.controls)

    def _read_manifest(self, path: str) -> Recordings:
        recordings = read_manifest(path, path_column="input")
        for column in ("target", *self.controls):
            if column not in recordings.columns:
                raise UserError(f"{path}: no column {column!r} ({nearest(column, recordings.columns)})")
        return recordings

    def read_predict(self) -> Recordings:
        if not isinstance(self.predict, str) or Path(self.predict).suffix.lower() not in MANIFEST_ENDINGS:
            raise UserError(
                f"predict {self.predict}: errors need pairs; give a manifest ({', '.join(MANIFEST_ENDINGS)}) with the "
                "columns input and target, or process files with longscan audio process"
            )
        return self._read_manifest(self.predict)

    def make_dataset(self, recordings: Recordings, lengths: np.ndarray, name: str) -> RecordedPairs:
        """Return the windows of a split."""
        training = name == "train"
        folder = Path(recordings.origin).parent
        paths = np.array([str(folder / Path(path).expanduser()) for path in recordings.columns["target"]], dtype=object)
        targets = replace(recordings, paths=paths, _infos={})
        differs = np.flatnonzero(targets.check(self.format) != lengths)
        if len(differs):
            raise UserError(
                f"{recordings.where(differs[0])}: {paths[differs[0]]} and {recordings.paths[differs[0]]} differ in "
                "length; cut them to the same frames, or name a common part with start and frames"
            )
        return RecordedPairs(
            recordings,
            targets,
            self._control_values(recordings),
            lengths,
            self.format,
            length=self.length if training else self.eval_length,
            random=training,
            named=name == "predict",
            seed=self.seed,
        )

    def _control_values(self, recordings: Recordings) -> np.ndarray:
        values = np.zeros((len(recordings), len(self.controls)), dtype=np.float32)
        for place, name in enumerate(self.controls):
            low, high = self.control_ranges.get(name, (0.0, 1.0))
            for row, text in enumerate(recordings.columns[name]):
                try:
                    number = float(text)
                except ValueError:
                    raise UserError(f"{recordings.where(row)}: {name} {text!r} is not a number; correct it") from None
                if not np.isfinite(number):
                    raise UserError(f"{recordings.where(row)}: {name} {text!r} is not finite; correct it")
                # The card promises this span to those who set the control.
                if not low <= number <= high:
                    raise UserError(
                        f"{recordings.where(row)}: {name} {number:g} is outside of {low:g} … {high:g}; give "
                        f"control_ranges for {name} its least and greatest value"
                    )
                values[row, place] = (number - low) / (high - low)
        return values


def check_lengths(length: int | None, eval_length: int | None) -> None:
    """Check the lengths of windows.

    Raises:
        UserError: one is below 1.
    """
    for name, value in (("length", length), ("eval_length", eval_length)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be at least 1")
