"""Writing audio files through libsndfile, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from ...core.errors import UserError, nearest
from ...core.files import replacing
from .files import check_finite, load_soundfile, read_frames, read_info

_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
_SUBTYPES = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
_BLOCK = 1 << 16


def write_audio(
    path: str | os.PathLike[str],
    samples: np.ndarray,
    sample_rate: int,
    *,
    subtype: str | None = None,
    overload: Literal["error", "clip", "normalize"] = "error",
) -> None:
    """Write samples; the ending chooses the format: WAV and FLAC (16 bits), OGG (Vorbis) or MP3.

    A failure, such as a full disk, leaves no half file, and an earlier file of that name as it was.

    Args:
        path: where to; missing folders are made.
        samples: floats (frames,) or (frames, channels), full scale at ±1.
        sample_rate: in hertz.
        subtype: another encoding of the samples: ``"PCM_16"``, ``"PCM_24"``, or for WAV ``"FLOAT"``.
        overload: what becomes of samples beyond ±1, except in a file of floats: an error, the nearest of ±1, or
            everything is divided by the largest.

    Raises:
        UserError: an unknown ending or encoding, no sample, NaN, samples beyond ±1, or nowhere to write to.
    """
    soundfile = load_soundfile()
    file = Path(path).expanduser()
    container, subtype = container_of(file, subtype)
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise UserError(f"{file}: nothing to write (samples of shape {samples.shape}); give at least one sample")
    check_finite(samples, file)
    samples = encoded(_within_scale(samples, file, subtype, overload), subtype)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with told_plainly(file), replacing(file) as temporary:
        with soundfile.SoundFile(
            str(temporary), "w", samplerate=sample_rate, channels=channels, format=container, subtype=subtype
        ) as stream:
            # In blocks: some versions of libvorbis overflow their stack on one long buffer.
            for begin in range(0, len(samples), _BLOCK):
                stream.write(samples[begin : begin + _BLOCK])
        finished(temporary, len(samples))


def container_of(path: Path, subtype: str | None) -> tuple[str, str]:
    """Return the format that a file's ending chooses, and the encoding of its samples.

    Raises:
        UserError: an unknown ending, or a format without this encoding.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: unknown ending {path.suffix!r} ({nearest(path.suffix, _FORMATS)})")
    container = _FORMATS[path.suffix.lower()]
    subtype = _SUBTYPES.get(container, "PCM_16") if subtype is None else subtype
    soundfile = load_soundfile()
    if not soundfile.check_format(container, subtype):
        known = soundfile.available_subtypes(container)
        raise UserError(f"{path}: {container} cannot hold {subtype!r} ({nearest(subtype, known)})")
    return container, subtype


@contextlib.contextmanager
def told_plainly(path: Path) -> Iterator[None]:
    """Turn what goes wrong while writing into one line that names the file."""
    soundfile = load_soundfile()
    try:
        yield
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise UserError(f"{path}: cannot write it ({reason}); is the disk full?") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot write it ({reason}); free some space or choose another folder") from error


def finished(path: Path, frames: int) -> None:
    """Check that the last frame of a file just written can be read: libsndfile does not tell when closing it fails.

    Raises:
        OSError: it cannot.
    """
    try:
        if read_info(path).frames >= frames and len(read_frames(path, frames - 1, 1)) == 1:
            return
    except UserError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _within_scale(samples: np.ndarray, path: Path, subtype: str, overload: str) -> np.ndarray:
    peak = float(np.abs(samples).max())
    if peak <= 1 or subtype in ("FLOAT", "DOUBLE"):
        return samples
    if overload == "clip":
        return np.clip(samples, -1, 1)
    if overload == "normalize":
        return samples / peak
    count = int((np.abs(samples) > 1).sum())
    raise UserError(
        f"{path}: {count} samples lie beyond ±1 (the largest is {peak:.4g}) and would be cut off; lower the gain, or "
        "choose to clip or to normalize"
    )


def encoded(samples: np.ndarray, subtype: str) -> np.ndarray:
    """Return what libsndfile writes without a rounding of its own."""
    if subtype in ("PCM_16", "PCM_24"):
        scale = 32768 if subtype == "PCM_16" else 8388608
        whole = np.clip(np.rint(samples.astype(np.float64) * scale), -scale, scale - 1).astype(np.int32)
        return whole.astype(np.int16) if subtype == "PCM_16" else whole << 8
    return samples.astype(np.float64 if subtype == "DOUBLE" else np.float32)
