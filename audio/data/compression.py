"""Pairs that the reference compressor makes of any programme material, while training or written to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.files import replacing
from ...core.training.data import SampleKey, sample_generator
from ..effects.compressor import Compressor, compress
from .augmentation import Augmentation
from .effects import EffectPairs, PairDataset, check_lengths
from .files import AudioFormat
from .manifest import Recordings
from .sourced import RecordingsDataModule
from .writing import write_audio

#: The controls of a compressor, in order.
CONTROLS = ("threshold", "ratio", "attack", "release")
#: Those that are drawn on a logarithmic scale.
LOGARITHMIC = ("attack", "release")


@dataclass(frozen=True)
class CompressorRanges:
    """What the settings of a compressor are drawn from, each (least, greatest); times are drawn on a logarithmic scale.

    The controls of a model are these four, scaled to 0 … 1 on the scale that they are drawn on.

    Args:
        threshold: in decibels.
        ratio: above the threshold.
        attack: in seconds.
        release: in seconds.
        knee: fixed, in decibels.

    Raises:
        UserError: a range that is empty, times that begin at 0, or a ratio below 1.
    """

    threshold: tuple[float, float] = (-40.0, -10.0)
    ratio: tuple[float, float] = (1.5, 10.0)
    attack: tuple[float, float] = (0.001, 0.03)
    release: tuple[float, float] = (0.03, 0.3)
    knee: float = 6.0

    def __post_init__(self) -> None:
        for name in CONTROLS:
            low, high = getattr(self, name)
            if not low < high:
                raise UserError(f"ranges.{name}={[low, high]} must be [least, greatest], which differ")
            if name in LOGARITHMIC and not low > 0:
                raise UserError(f"ranges.{name}={[low, high]} is drawn on a logarithmic scale; begin above 0")
        if not self.ratio[0] >= 1:
            raise UserError(f"ranges.ratio={list(self.ratio)} must not begin below 1")

    def settings(self, controls: np.ndarray) -> Compressor:
        """Return the settings for controls (4,) in 0 … 1."""
        values = {}
        for name, control in zip(CONTROLS, np.asarray(controls, dtype=np.float64).tolist(), strict=True):
            low, high = getattr(self, name)
            values[name] = low * (high / low) ** control if name in LOGARITHMIC else low + (high - low) * control
        return Compressor(knee=self.knee, **values)


class CompressedPairs(PairDataset):
    """Pairs whose targets the reference compressor makes, with settings drawn anew for each window."""

    def __init__(self, *args: Any, ranges: CompressorRanges, augmentation: Augmentation | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ranges, self.augmentation = ranges, augmentation
        assert self.wanted.sample_rate is not None
        self.sample_rate = self.wanted.sample_rate

    def pair(
        self, inputs: np.ndarray, row: int, start: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        controls = generator.random(len(CONTROLS)).astype(np.float32)
        if self.augmentation is not None:
            inputs, *_ = self.augmentation(inputs, self.sample_rate, generator)
            # What is made louder stays within full scale, as recordings do: no output of a tanh would reach beyond.
            inputs = inputs / max(1.0, float(np.abs(inputs).max()))
        targets, _ = compress(inputs, self.sample_rate, self.ranges.settings(controls))
        return inputs, targets.astype(np.float32), controls


class CompressorDataModule(EffectPairs, RecordingsDataModule):
    """Any recordings as programme material, and the reference compressor as the effect to be learned.

    Batches are those of `EffectDataModule` with four controls (`CONTROLS`). The settings of a window are a pure
    function of ``(seed, epoch, index)``; those of evaluation windows never change. The compressor begins each window at
    rest, as a model does.

    Args:
        ranges: of the settings.
        length: frames of a training window, at random places; whole recordings where None.
        eval_length: frames of a window in evaluation, one after the other; whole recordings where None.
        augmentation: of training windows, before the compressor; a window that it takes beyond full scale is turned
            down to it.
        options: those of `RecordingsDataModule`.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the files.
    """

    num_controls = len(CONTROLS)

    def __init__(
        self,
        ranges: CompressorRanges | None = None,
        length: int | None = None,
        eval_length: int | None = None,
        augmentation: Augmentation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.ranges = CompressorRanges() if ranges is None else ranges
        self.length, self.eval_length, self.augmentation = length, eval_length, augmentation
        check_lengths(length, eval_length)

    def make_dataset(self, recordings: Recordings, lengths: np.ndarray, name: str) -> CompressedPairs:
        """Return the windows of a split."""
        training = name == "train"
        return CompressedPairs(
            recordings,
            lengths,
            self.format,
            ranges=self.ranges,
            augmentation=self.augmentation if training else None,
            length=self.length if training else self.eval_length,
            random=training,
            named=name == "predict",
            # Otherwise the first epoch would draw for a training window what evaluation draws for the same index.
            seed=self.seed if training else self.seed + 1,
        )


def write_compressed_pairs(
    recordings: Recordings, wanted: AudioFormat, folder: Path, ranges: CompressorRanges, *, seed: int = 0
) -> Path:
    """Write dry and compressed 24-bit WAV files, with settings drawn by ``seed``, and ``pairs.csv``, the manifest that
    `EffectDataModule` reads with ``controls: [threshold, ratio, attack, release]``; return the latter's path.

    Raises:
        UserError: something is wrong with a recording, or the folder cannot be written to.
    """
    lines = ["input,target,name,split," + ",".join(CONTROLS)]
    for index in range(len(recordings)):
        samples, rate = recordings.read(index, wanted)
        controls = sample_generator(seed, SampleKey(0, index)).random(len(CONTROLS))
        settings = ranges.settings(controls)
        stem = f"{index:06d}"
        for kind, signal in (("input", samples), ("target", compress(samples, rate, settings)[0])):
            write_audio(folder / f"{stem}_{kind}.wav", signal, rate, subtype="PCM_24")
        split = "train" if recordings.splits is None else recordings.splits[index]
        numbers = ",".join(f"{getattr(settings, name):.9g}" for name in CONTROLS)
        name = str(recordings.names[index]).replace('"', '""')
        lines.append(f'{stem}_input.wav,{stem}_target.wav,"{name}",{split},{numbers}')
    with replacing(folder / "pairs.csv") as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "pairs.csv"
