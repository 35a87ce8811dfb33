"""Programme material of effect models, and what effects can be copied with without learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import longscan
from longscan.audio.data.compression import CompressorDataModule, CompressorRanges
from longscan.audio.data.manifest import read_manifest
from longscan.audio.data.sources import read_collection
from longscan.audio.effects import programme
from longscan.audio.effects.baselines import best_gain, error_to_signal, main, memoryless
from longscan.audio.effects.compressor import Compressor, compress
from longscan.core.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of files of half a second at 8 kHz, two or so of each kind and split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programme, "FILES", {"train": 4, "val": 1, "test": 2})
        return programme.write_programme(tmp_path_factory.mktemp("programme"), 8000, seconds=0.5)


def test_files_and_manifest(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = read_manifest(written)
    assert len(recordings) == 14
    assert recordings.splits is not None
    assert dict(zip(*np.unique(recordings.splits.astype(str), return_counts=True), strict=True)) == {
        "train": 8,
        "val": 2,
        "test": 4,
    }
    assert set(recordings.columns["kind"]) == {"speech", "music"}
    for path in recordings.paths:
        samples, rate = soundfile.read(path)
        assert (len(samples), rate) == (4000, 8000)
        assert np.abs(samples).max() == pytest.approx(10 ** (-6 / 20), abs=1e-4)
    contents = {Path(path).read_bytes() for path in recordings.paths}
    assert len(contents) == 14  # no file is like another
    monkeypatch.setattr(programme, "FILES", {"train": 4, "val": 1, "test": 2})
    assert programme.main([str(tmp_path), "--sample-rate", "8000", "--seconds", "0.5"]) == 0
    assert {path.read_bytes() for path in tmp_path.glob("*.wav")} == contents


def test_speakers_are_held_out() -> None:
    digits = read_collection("spoken_digits", None)
    heard = [set(speakers) for speakers in programme.SPEAKERS.values()]
    assert set.union(*heard) == set(digits.columns["speaker"])
    assert sum(map(len, heard)) == len(set.union(*heard))


def test_interpolation_of_a_sine() -> None:
    time = np.arange(800) / 8000
    longer = programme.interpolated(np.sin(2 * np.pi * 300 * time + 0.3), 8000, 44_100)
    np.testing.assert_allclose(longer, np.sin(2 * np.pi * 300 * np.arange(4410) / 44_100 + 0.3), atol=1e-12)
    assert len(programme.interpolated(np.ones(801), 8000, 44_100)) == 4851  # 880 samples, the next multiple of 80


def test_a_note_has_its_harmonics() -> None:
    spectrum = np.abs(np.fft.rfft(programme.tone(200.0, 0.5, 1.0, 8000)[:4000]))  # bins of 2 Hz
    for k in range(1, 18):
        around = spectrum[100 * k - 50 : 100 * k + 50]
        assert around.argmax() == 50, k
    assert spectrum[100] > 2 * spectrum[200] > 2 * spectrum[400]


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--sample-rate 22049: must be a multiple of 100"):
        programme.write_programme(tmp_path, 22_049)
    with pytest.raises(UserError, match="--seconds 0"):
        programme.write_programme(tmp_path, 8000, seconds=0)


def test_errors_of_the_baselines() -> None:
    ranges, generator = CompressorRanges(attack=(1e-9, 1e-8), release=(1e-9, 1e-8)), np.random.default_rng(0)
    examples = []
    for kind in ("speech", "music"):
        inputs, controls = generator.uniform(-1, 1, (500, 1)), generator.random(4)
        examples.append((kind, inputs, compress(inputs, 8000, ranges.settings(controls))[0], controls))
    # A compressor without memory is one whose times are none.
    found = error_to_signal(examples, memoryless(ranges))
    assert set(found) == {"all", "speech", "music"}
    assert max(found.values()) < 1e-20
    halves = [(kind, inputs, inputs / 2, controls) for kind, inputs, _, controls in examples]
    assert best_gain(halves) == pytest.approx(0.5)
    assert error_to_signal(halves, lambda samples, controls: samples)["all"] == pytest.approx(1.0)
    assert memoryless(ranges)(np.zeros((3, 2)), np.zeros(4)).tolist() == [[0, 0]] * 3


def test_the_table(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A model that passes everything on unchanged: its gain is exp(0).
    model = longscan.create_model("s4_compressor", n_controls=4, output="gain", d_model=4, n_layers=1)
    torch.nn.init.zeros_(model.decoder.weight)
    torch.nn.init.zeros_(model.decoder.bias)
    model.save_pretrained(tmp_path)
    assert main([str(written), "--sample-rate", "8000", "--eval-length", "3000", "--model", str(tmp_path)]) == 0
    header, same, gain, memory, unchanged = capsys.readouterr().out.splitlines()
    assert unchanged.split()[-3:] == same.split()[-3:]
    assert header.split() == ["ESR", "on", "test", "all", "speech", "music"]
    values = [float(line.split()[-3]) for line in (same, gain, memory)]
    assert values[0] > values[1] > 0.01
    assert 0 < values[2] < values[0]


def test_training_windows_stay_within_full_scale(written: Path) -> None:
    from longscan.audio.data.augmentation import Augmentation

    data = CompressorDataModule(
        manifest=str(written), sample_rate=8000, length=2000, augmentation=Augmentation(gain_db=30.0)
    )
    data.setup("fit")
    samples = [data.train_set[index] for index in range(len(data.train_set))]
    peaks = [float(np.abs(sample["input_ids"]).max()) for sample in samples]
    assert max(peaks) == pytest.approx(1.0)
    assert min(peaks) < 0.9
    for sample in samples:
        # The target is what the compressor makes of the input as it is given.
        target, _ = compress(sample["input_ids"], 8000, data.ranges.settings(sample["controls"]))
        np.testing.assert_allclose(sample["labels"], target, atol=1e-6)
    assert isinstance(data.ranges.settings(samples[0]["controls"]), Compressor)
