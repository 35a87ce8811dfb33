"""Audio files: exact samples, crops by seeking, resampling, and every way in which a file can be wrong."""

from __future__ import annotations

import resource
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from longscan.audio.data.files import AudioFormat, read_audio, read_info
from longscan.audio.data.writing import write_audio
from longscan.audio.resampling import at_a_fraction, decimate, resample, resampled_length
from longscan.core.errors import UserError

RATE = 8000


def noise(frames: int = 20_000, channels: int = 1) -> np.ndarray:
    """Integers of 16 bits, as floats."""
    whole = np.random.default_rng(0).integers(-20_000, 20_000, (frames, channels))
    return (whole / 32768).astype(np.float32)


def tone(hertz: float, frames: int, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(frames) / rate)).astype(np.float32)[:, None]


# Writing and reading


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_sixteen_bits_come_back_exactly(tmp_path: Path, ending: str) -> None:
    path, samples = tmp_path / f"new/x.{ending}", noise(channels=2)
    write_audio(path, samples, RATE)
    read, rate = read_audio(path)
    assert rate == RATE
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, samples)
    info = read_info(path)
    assert (info.frames, info.channels, info.bits, info.seconds) == (20_000, 2, 16, 2.5)
    # Full scale: +1 is the largest integer, -1 the smallest.
    write_audio(path, np.array([1.0, -1.0, 0.0]), RATE)
    assert read_audio(path)[0][:, 0].tolist() == [32767 / 32768, -1.0, 0.0]


@pytest.mark.parametrize(("ending", "error"), [("ogg", 0.15), ("mp3", 0.15)])
def test_lossy_formats(tmp_path: Path, ending: str, error: float) -> None:
    path, samples = tmp_path / f"x.{ending}", tone(440, 100_000)
    write_audio(path, samples, RATE)
    info = read_info(path)
    assert info.frames == 100_000
    assert info.bits is None
    read, _ = read_audio(path)
    assert np.sqrt(np.mean((read - samples) ** 2)) < error * np.sqrt(np.mean(samples**2))
    crop, _ = read_audio(path, start=72_345, frames=1000)
    np.testing.assert_allclose(crop, read[72_345:73_345], atol=1e-6)


def test_other_depths(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (1000, 1))
    for subtype, step in (("PCM_24", 2**-24), ("FLOAT", 2**-24)):
        write_audio(tmp_path / "x.wav", samples, RATE, subtype=subtype)
        assert np.abs(read_audio(tmp_path / "x.wav")[0] - samples).max() <= step * 1.01
    write_audio(tmp_path / "x.wav", 3 * samples, RATE, subtype="FLOAT")
    assert read_audio(tmp_path / "x.wav")[0].max() > 2


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_crop_decodes_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    path, samples = tmp_path / f"x.{ending}", noise(300_000)
    write_audio(path, samples, RATE)
    asked: list[int] = []
    original = soundfile.SoundFile.read

    def read(self: Any, frames: int = -1, **options: Any) -> np.ndarray:
        asked.append(frames)
        return original(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    crop, _ = read_audio(path, start=123_457, frames=777)
    np.testing.assert_array_equal(crop, samples[123_457:124_234])
    assert asked == [777]


# Sample rates and channels


@pytest.mark.parametrize("new_rate", [4000, 16_000, 44_100, 6000])
def test_resampled_crops_are_those_of_the_whole(tmp_path: Path, new_rate: int) -> None:
    write_audio(tmp_path / "x.wav", noise(), RATE)
    wanted = AudioFormat(new_rate, 1, resample=True)
    whole, rate = read_audio(tmp_path / "x.wav", wanted)
    assert rate == new_rate
    assert len(whole) == resampled_length(20_000, RATE, new_rate) == wanted.length(read_info(tmp_path / "x.wav"))
    np.testing.assert_array_equal(whole, resample(noise(), RATE, new_rate))
    for start, frames in ((0, 50), (1, 1), (3333, 500), (len(whole) - 77, 77)):
        crop, _ = read_audio(tmp_path / "x.wav", wanted, start=start, frames=frames)
        np.testing.assert_allclose(crop, whole[start : start + frames], atol=2e-7)


def test_batches_are_resampled_as_files_are() -> None:
    samples = np.random.default_rng(0).standard_normal((3, 301, 2)).astype(np.float32)
    found = at_a_fraction(torch.from_numpy(samples), 2)
    assert found.shape == (3, 151, 2)
    for row, expected in zip(found.numpy(), samples, strict=True):
        np.testing.assert_allclose(row, resample(expected, 8000, 4000), atol=1e-6)


def test_resampling_removes_what_decimation_folds_back() -> None:
    low, high = tone(500, 8000), tone(3000, 8000)  # 3 kHz is beyond the new Nyquist frequency, 2 kHz
    np.testing.assert_allclose(resample(low, RATE, 4000)[100:-100], tone(500, 4000, 4000)[100:-100], atol=2e-3)
    assert np.abs(resample(high, RATE, 4000)[100:-100]).max() < 0.01
    folded = decimate(high, 2)
    np.testing.assert_allclose(folded, -tone(1000, 4000, 4000), atol=1e-5)
    np.testing.assert_array_equal(decimate(np.arange(7), 3), [0, 3, 6])
    with pytest.raises(UserError, match="decimation=0"):
        decimate(low, 0)


def test_another_rate_names_the_flag(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", noise(), RATE)
    with pytest.raises(UserError, match=r"x\.wav: .* 8000 Hz but 16000 Hz .* --data\.resample true") as error:
        read_audio(tmp_path / "x.wav", AudioFormat(16_000))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r" --resample resamples it"):
        read_audio(tmp_path / "x.wav", AudioFormat(16_000, flags="--"))


def test_another_channel_count_names_the_flag(tmp_path: Path) -> None:
    samples = noise(channels=2)
    write_audio(tmp_path / "x.wav", samples, RATE)
    with pytest.raises(UserError, match=r"2 channel\(s\) but 1 .* --data\.mixdown true"):
        read_audio(tmp_path / "x.wav", AudioFormat(channels=1))
    mixed, _ = read_audio(tmp_path / "x.wav", AudioFormat(channels=1, mixdown=True))
    np.testing.assert_allclose(mixed[:, 0], samples.mean(1), atol=1e-7)
    with pytest.raises(UserError, match=r"2 channel\(s\) but 3 .* --data\.channels 2"):
        read_audio(tmp_path / "x.wav", AudioFormat(channels=3, mixdown=True))


def test_bit_depth_is_checked(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", noise(), RATE, subtype="PCM_U8")
    assert read_info(tmp_path / "x.wav").bits == 8
    with pytest.raises(UserError, match="8 bits per sample but at least 16"):
        read_audio(tmp_path / "x.wav", AudioFormat(min_bits=16))
    write_audio(tmp_path / "x.ogg", noise(), RATE)
    read_audio(tmp_path / "x.ogg", AudioFormat(min_bits=16))


def test_resampling_without_torchaudio_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "x.wav", noise(), RATE)
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(UserError, match=r"needs torchaudio .*pip install 'longscan\[audio\]'"):
        read_audio(tmp_path / "x.wav", AudioFormat(4000, resample=True))
    read_audio(tmp_path / "x.wav", AudioFormat(RATE, resample=True))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UserError, match=r"needs soundfile; pip install 'longscan\[audio\]'"):
        read_audio(tmp_path / "x.wav")


# Bad input


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.wav: no such file"):
        read_audio(tmp_path / "gone.wav")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(UserError, match=r"empty\.wav: the file is empty"):
        read_audio(tmp_path / "empty.wav")
    for content in (b"hello world " * 50, b"RIFF", b"\x00" * 5000):
        (tmp_path / "text.wav").write_bytes(content)
        with pytest.raises(UserError, match=r"text\.wav: is not an audio file") as error:
            read_audio(tmp_path / "text.wav")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_truncated_files_are_never_read_as_shorter_ones(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"x.{ending}"
    if ending == "aiff":
        soundfile.write(path, noise(), RATE)
    else:
        write_audio(path, noise(), RATE)
    whole = path.read_bytes()
    read_audio(path)
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=rf"x\.{ending}: is truncated") as error:
        read_audio(path)
    assert "\n" not in str(error.value)


def test_a_wav_stream_of_unknown_length_is_read(tmp_path: Path) -> None:
    """Programs that write to a pipe leave 0xFFFFFFFF as the length."""
    write_audio(tmp_path / "x.wav", noise(1000), RATE)
    content = bytearray((tmp_path / "x.wav").read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "x.wav").write_bytes(content)
    np.testing.assert_array_equal(read_audio(tmp_path / "x.wav")[0], noise(1000))


def test_zero_samples_and_nan(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    with pytest.raises(UserError, match=r"none\.wav: holds no sample"):
        read_audio(tmp_path / "none.wav")
    samples = noise()
    for value, kind in ((np.nan, "NaN"), (np.inf, "infinite")):
        samples[1234] = value
        soundfile.write(tmp_path / "bad.wav", samples, RATE, subtype="FLOAT")
        with pytest.raises(UserError, match=rf"bad\.wav: a sample is {kind} \(frame 1234\)"):
            read_audio(tmp_path / "bad.wav")
        with pytest.raises(UserError, match=r"frame 1234"):
            read_audio(tmp_path / "bad.wav", start=1200, frames=100)


def test_a_crop_outside_the_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", noise(100), RATE)
    with pytest.raises(UserError, match=r"frames 90 to 110 are not inside its 100 frames"):
        read_audio(tmp_path / "x.wav", start=90, frames=20)


# What cannot be written


def test_overload_is_never_cut_off_in_silence(tmp_path: Path) -> None:
    samples = np.array([0.5, -2.0, 1.5])
    with pytest.raises(UserError, match=r"2 samples lie beyond ±1 \(the largest is 2\)"):
        write_audio(tmp_path / "x.wav", samples, RATE)
    assert not list(tmp_path.iterdir())
    write_audio(tmp_path / "x.wav", samples, RATE, overload="clip")
    assert read_audio(tmp_path / "x.wav")[0][:, 0].tolist() == [0.5, -1.0, 32767 / 32768]
    write_audio(tmp_path / "x.wav", samples, RATE, overload="normalize")
    assert read_audio(tmp_path / "x.wav")[0][:, 0].tolist() == [0.25, -1.0, 0.75]


def test_arguments_of_writing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown ending '\.wave' .*\.wav"):
        write_audio(tmp_path / "x.wave", noise(), RATE)
    with pytest.raises(UserError, match="WAV cannot hold 'PCM_18'"):
        write_audio(tmp_path / "x.wav", noise(), RATE, subtype="PCM_18")
    with pytest.raises(UserError, match="nothing to write"):
        write_audio(tmp_path / "x.wav", np.zeros(0), RATE)
    with pytest.raises(UserError, match=r"a sample is NaN \(frame 1\)"):
        write_audio(tmp_path / "x.wav", np.array([0, np.nan]), RATE)


@pytest.mark.parametrize("frames", [300, 60_000])
@pytest.mark.parametrize("room", [10, 100, 2000])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path, ending: str, room: int, frames: int) -> None:
    """A limit on the size of files stands for the disk; short files fail only when they are closed."""
    path, samples = tmp_path / f"x.{ending}", noise(frames)
    write_audio(path, samples, RATE)
    if path.stat().st_size <= room:
        pytest.skip("fits")
    path.write_bytes(b"earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(UserError, match=rf"x\.{ending}: cannot write it") as error:
            write_audio(path, samples, RATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"earlier"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write it"):
        write_audio(tmp_path / "file" / "x.wav", noise(), RATE)
