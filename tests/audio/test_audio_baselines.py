"""The baseline of the packaged spoken digits, and the builder of that set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longscan.audio.baselines import cepstral_features, cepstral_regression, read_clips
from longscan.audio.data.files import AudioFormat, read_audio
from longscan.audio.data.manifest import read_manifest
from longscan.audio.data.sources import read_collection
from longscan.audio.data.writing import write_audio
from longscan.audio.datasets import dataset_path
from longscan.audio.datasets.build_spoken_digits import main
from longscan.core.errors import UserError


def test_cepstra_and_logistic_regression_on_spoken_digits() -> None:
    digits = read_collection("spoken_digits", None)
    assert digits.labels is not None
    assert digits.splits is not None
    clips, labels = read_clips(digits, AudioFormat(8000, 1)), digits.labels.astype(int)
    test = digits.splits == "test"
    train, tested = ([clips[row] for row in np.flatnonzero(rows)] for rows in (~test, test))
    found = cepstral_regression(train, labels[~test], tested, sample_rate=8000)
    accuracy = (found == labels[test]).mean()
    print(f"official test accuracy with 1,200 training recordings: {accuracy:.4f}")
    assert accuracy > 0.96


def test_features_have_one_shape_whatever_the_length() -> None:
    generator = np.random.default_rng(0)
    clips = [generator.standard_normal(length).astype(np.float32) * 0.1 for length in (20, 300, 20_000)]
    found = cepstral_features(clips, 8000)
    assert found.shape == (3, 143)
    assert np.isfinite(found).all()
    # Twice as loud is log 4 more energy in each of 26 bands: √26 log 4 more in the first coefficient.
    louder = cepstral_features([2 * clips[2]], 8000)[0] - found[2]
    np.testing.assert_allclose(louder[:10], np.sqrt(26) * np.log(4), rtol=1e-3)
    np.testing.assert_allclose(louder[10:], 0, atol=1e-2)


def test_the_builder_keeps_every_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = {}
    for digit in (0, 1):
        for speaker in ("ann", "bob"):
            for index in (0, 24, 25):
                clip = np.random.default_rng(len(samples)).integers(-30_000, 30_000, 200 + 10 * len(samples)) / 32768
                samples[f"{digit}_{speaker}_{index}"] = clip.astype(np.float32)
                write_audio(tmp_path / f"from/{digit}_{speaker}_{index}.wav", clip, 8000)
    assert main([str(tmp_path / "from"), str(tmp_path / "to")]) == 0
    assert "wrote 8 recordings" in capsys.readouterr().out
    found = read_manifest(tmp_path / "to/recordings.csv")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["ann.flac", "bob.flac", "recordings.csv"]
    assert len(found) == 8
    for row, name in enumerate(found.names):
        np.testing.assert_array_equal(found.read(row, AudioFormat(8000, 1))[0][:, 0], samples[name])
        assert found.labels is not None
        assert found.labels[row] == name[0]


def test_packaged_paths() -> None:
    assert dataset_path("spoken_digits").is_file()
    samples, rate = read_audio(dataset_path("spoken_digits").parent / "theo.flac", frames=10)
    assert (samples.shape, rate) == ((10, 1), 8000)
    with pytest.raises(UserError, match=r"unknown data set 'digits' \(nearest: spoken_digits"):
        dataset_path("digits")
