"""Audio files block by block, for models that carry a state: neither reading nor writing holds a whole file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.files import replacing, require_file
from .files import AudioFormat, check_finite, load_soundfile, opened, read_info
from .writing import container_of, encoded, finished, told_plainly


def read_blocks(path: str | os.PathLike[str], wanted: AudioFormat, frames: int) -> Iterator[np.ndarray]:
    """Yield a file in blocks, float32 (frames, channels), the last one shorter where need be.

    Args:
        path: the file.
        wanted: the format to check for; a stream is not resampled, but mixed down where that is asked for.
        frames: of a block.

    Raises:
        UserError: what :func:`longscan.audio.data.files.read_audio` raises, when the block with it is asked for; a
            block below one frame; another sample rate.
    """
    if frames < 1:
        raise UserError(f"a block of {frames} frames: give at least 1")
    file, info = require_file(path), read_info(path)
    if wanted.sample_rate not in (None, info.sample_rate):
        raise UserError(
            f"{file}: has a sample rate of {info.sample_rate} Hz but {wanted.sample_rate} Hz is wanted, and a stream "
            "is not resampled; resample the file first"
        )
    wanted.check(file, info)
    done = 0
    with opened(file) as stream:
        while done < info.frames:
            block = stream.read(min(frames, info.frames - done), dtype="float32", always_2d=True)
            if len(block) == 0:
                raise UserError(
                    f"{file}: is truncated or damaged (its header promises {info.frames} frames, but {done} can be "
                    "read); copy or download it again, or leave it out"
                )
            check_finite(block, file, done)
            done += len(block)
            if wanted.mixdown and wanted.channels == 1 and info.channels > 1:
                block = block.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
            yield block


def write_blocks(
    path: str | os.PathLike[str],
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    *,
    channels: int = 1,
    subtype: str | None = None,
) -> tuple[int, int]:
    """Write blocks as they come; a failure, also of ``blocks`` itself, leaves no half file.

    Samples beyond ±1 become ±1, except in a file of floats: unlike a whole file a stream cannot be turned down later.

    Args:
        path: where to; the ending chooses the format as in :func:`longscan.audio.data.writing.write_audio`.
        blocks: floats (frames, channels), or (frames,) for one channel.
        sample_rate: in hertz.
        channels: of the file.
        subtype: another encoding of the samples.

    Returns:
        How many frames were written, and how many samples lay beyond ±1.

    Raises:
        UserError: an unknown ending or encoding, no sample, NaN, or nowhere to write to.
    """
    soundfile = load_soundfile()
    file = Path(path).expanduser()
    container, subtype = container_of(file, subtype)
    written = beyond = 0
    with told_plainly(file), replacing(file) as temporary:
        with soundfile.SoundFile(
            str(temporary), "w", samplerate=sample_rate, channels=channels, format=container, subtype=subtype
        ) as stream:
            for block in blocks:
                block = np.asarray(block).reshape(-1, channels)
                check_finite(block, file, written)
                if subtype not in ("FLOAT", "DOUBLE"):
                    beyond += int((np.abs(block) > 1).sum())
                    block = np.clip(block, -1, 1)
                stream.write(encoded(block, subtype))
                written += len(block)
        if written == 0:
            raise UserError(f"{file}: nothing to write; the stream held no sample")
        finished(temporary, written)
    return written, beyond
