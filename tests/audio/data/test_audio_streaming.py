"""Files block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from longscan.audio.data.files import AudioFormat, read_audio, read_info
from longscan.audio.data.streaming import read_blocks, write_blocks
from longscan.core.errors import UserError

Record = Callable[..., np.ndarray]


@pytest.mark.parametrize("frames", [1, 64, 999, 5000])
def test_blocks_are_the_file(tmp_path: Path, record: Record, frames: int) -> None:
    samples = record("x.flac", 1000, channels=2)
    blocks = list(read_blocks(tmp_path / "x.flac", AudioFormat(8000, 2), frames))
    assert [len(block) for block in blocks[:-1]] == [frames] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), samples)
    assert write_blocks(tmp_path / "y.wav", blocks, 8000, channels=2) == (1000, 0)
    np.testing.assert_array_equal(read_audio(tmp_path / "y.wav")[0], samples)
    mixed = np.concatenate(list(read_blocks(tmp_path / "x.flac", AudioFormat(channels=1, mixdown=True), frames)))
    np.testing.assert_allclose(mixed[:, 0], samples.mean(1), atol=1e-7)


def test_what_lies_beyond_full_scale_is_counted(tmp_path: Path) -> None:
    blocks = [np.array([0.5, 2.0]), np.array([-3.0, -0.5])]
    assert write_blocks(tmp_path / "y.wav", blocks, 8000) == (4, 2)
    assert read_audio(tmp_path / "y.wav")[0][:, 0].tolist() == [0.5, 32767 / 32768, -1, -0.5]
    assert write_blocks(tmp_path / "y.wav", blocks, 8000, subtype="FLOAT") == (4, 0)
    assert read_audio(tmp_path / "y.wav")[0][:, 0].tolist() == [0.5, 2, -3, -0.5]


def test_what_is_wrong_is_told(tmp_path: Path, record: Record) -> None:
    record("x.wav", 1000)
    with pytest.raises(UserError, match=r"16000 Hz is wanted, and a stream is not resampled"):
        next(read_blocks(tmp_path / "x.wav", AudioFormat(16_000, resample=True), 64))
    with pytest.raises(UserError, match="a block of 0 frames"):
        next(read_blocks(tmp_path / "x.wav", AudioFormat(), 0))
    record("x.mp3", 20_000)
    whole = (tmp_path / "x.mp3").read_bytes()
    (tmp_path / "x.mp3").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"x\.mp3: is truncated"):
        list(read_blocks(tmp_path / "x.mp3", AudioFormat(), 64))


def test_a_stream_that_breaks_off_leaves_no_half_file(tmp_path: Path, record: Record) -> None:
    (tmp_path / "y.wav").write_bytes(b"earlier")

    def broken() -> Iterator[np.ndarray]:
        yield np.zeros(10)
        yield np.array([0.0, np.nan])

    with pytest.raises(UserError, match=r"y\.wav: a sample is NaN \(frame 11\)"):
        write_blocks(tmp_path / "y.wav", broken(), 8000)
    with pytest.raises(UserError, match="the stream held no sample"):
        write_blocks(tmp_path / "y.wav", [], 8000)
    assert (tmp_path / "y.wav").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["y.wav"]
    samples = record("x.wav", 100)
    write_blocks(tmp_path / "x.wav", list(read_blocks(tmp_path / "x.wav", AudioFormat(), 7)), 8000)
    assert read_info(tmp_path / "x.wav").frames == 100
    np.testing.assert_array_equal(read_audio(tmp_path / "x.wav")[0], samples)
