"""Reading audio files through libsndfile: WAV, FLAC, OGG, MP3 and what else it knows.

Samples are float32 arrays (frames, channels), full scale at ±1: a 16-bit sample is its integer divided by 32768. A crop
is read by seeking; only what is asked for is decoded.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.files import require_file
from ..resampling import check_torchaudio, crop_for_resampling, resample, resampled_length

#: Endings that folders are searched for.
ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".au", ".w64", ".opus")

_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
_MP3_AHEAD = 16 * 1152


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a file says.

    Args:
        sample_rate: in hertz.
        frames: samples of each channel.
        channels: number of channels.
        bits: bits per sample; None for lossy formats, which have none.
        format: container, such as ``"WAV"``.
        subtype: encoding of the samples, such as ``"PCM_16"``.
    """

    sample_rate: int
    frames: int
    channels: int
    bits: int | None
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class AudioFormat:
    """What a model reads, and what may be done to a file that is otherwise.

    Args:
        sample_rate: in hertz; any where None.
        channels: number of channels; any where None.
        resample: resample files of another rate, with an anti-aliasing filter.
        mixdown: average the channels of a file for a model of one channel.
        min_bits: the fewest bits per sample of a file; any where None. Lossy formats pass.
        flags: what stands before the names of these arguments where the user gives them, for messages.
    """

    sample_rate: int | None = None
    channels: int | None = None
    resample: bool = False
    mixdown: bool = False
    min_bits: int | None = None
    flags: str = "--data."

    def check(self, path: str | os.PathLike[str], info: AudioInfo) -> None:
        """Check a file's header.

        Raises:
            UserError: another sample rate or channel count or fewer bits, naming the flag that converts it.
        """
        # A configuration's flags have a value; those of the verbs are switches, and of channels they have none.
        verb = self.flags == "--"
        value = "" if verb else " true"
        if self.sample_rate is not None and info.sample_rate != self.sample_rate:
            if not self.resample:
                raise UserError(
                    f"{path}: has a sample rate of {info.sample_rate} Hz but {self.sample_rate} Hz is wanted; "
                    f"{self.flags}resample{value} resamples it"
                )
            check_torchaudio()
        if self.channels is not None and info.channels != self.channels and not (self.mixdown and self.channels == 1):
            if self.channels == 1:
                remedy = f"{self.flags}mixdown{value} averages them"
            else:
                remedy = "convert it" if verb else f"convert it, or set {self.flags}channels {info.channels}"
            raise UserError(f"{path}: has {info.channels} channel(s) but {self.channels} is wanted; {remedy}")
        if self.min_bits is not None and info.bits is not None and info.bits < self.min_bits:
            raise UserError(
                f"{path}: has {info.bits} bits per sample but at least {self.min_bits} are wanted; use a better copy, "
                f"or lower {self.flags}min_bits"
            )

    def length(self, info: AudioInfo) -> int:
        """Return the number of frames of a file at the rate that is wanted."""
        if self.sample_rate is None or self.sample_rate == info.sample_rate:
            return info.frames
        return resampled_length(info.frames, info.sample_rate, self.sample_rate)


def load_soundfile() -> Any:
    """Return the module soundfile.

    Raises:
        UserError: it is missing.
    """
    try:
        import soundfile
    except ImportError as error:
        raise UserError("reading and writing audio needs soundfile; pip install 'longscan[audio]'") from error
    return soundfile


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; what libsndfile finds wrong with it, then or while reading, names the file."""
    soundfile = load_soundfile()
    try:
        with soundfile.SoundFile(str(path)) as stream:
            yield stream
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        # Codes 1 and 3: the format is not recognised, or its header is malformed.
        if error.code in (1, 3):
            raise UserError(f"{path}: is not an audio file that libsndfile reads ({reason}); convert it") from error
        raise UserError(
            f"{path}: is truncated or damaged ({reason}); copy or download it again, or leave it out"
        ) from error


def read_info(path: str | os.PathLike[str]) -> AudioInfo:
    """Return what the header of a file says, without decoding it.

    Raises:
        UserError: no such file, an empty one, not audio, truncated as far as the header tells, or zero samples.
    """
    file = require_file(path)
    with opened(file) as stream:
        info = AudioInfo(
            stream.samplerate,
            stream.frames,
            stream.channels,
            _BITS.get(stream.subtype),
            stream.format,
            stream.subtype,
        )
    _check_whole(file, info)
    if info.frames == 0:
        raise UserError(f"{file}: holds no sample; leave it out or record it again")
    return info


def read_audio(
    path: str | os.PathLike[str],
    wanted: AudioFormat | None = None,
    *,
    start: int = 0,
    frames: int | None = None,
    info: AudioInfo | None = None,
) -> tuple[np.ndarray, int]:
    """Read a file, or a crop of it by seeking.

    A resampled crop equals the same part of the whole file resampled.

    Args:
        path: the file.
        wanted: the format to check for or convert to; as the file is where None.
        start: first frame, at the rate that is wanted.
        frames: how many, at the rate that is wanted; to the end where None.
        info: what :func:`read_info` said of the file, where it is known.

    Returns:
        Samples, float32 (frames, channels) in [-1, 1], and their rate in hertz. Files of floats may exceed ±1.

    Raises:
        UserError: what `read_info` and `AudioFormat.check` raise; a truncated file; NaN or infinite samples; a crop
            that is not inside the file.
    """
    wanted = AudioFormat() if wanted is None else wanted
    info = read_info(path) if info is None else info
    wanted.check(path, info)
    rate = info.sample_rate if wanted.sample_rate is None else wanted.sample_rate
    length = wanted.length(info)
    frames = length - start if frames is None else frames
    if start < 0 or frames < 1 or start + frames > length:
        raise UserError(
            f"{path}: frames {start} to {start + frames} are not inside its {length} frames (at {rate} Hz); correct "
            "the start and the length"
        )
    if rate == info.sample_rate:
        samples = read_frames(Path(path), start, frames)
    else:
        part = crop_for_resampling(start, frames, info.frames, info.sample_rate, rate)
        samples = resample(read_frames(Path(path), part.start, part.frames), info.sample_rate, rate)
        samples = samples[part.skip : part.skip + frames]
    if wanted.mixdown and wanted.channels == 1 and info.channels > 1:
        samples = samples.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
    return samples, rate


def read_frames(path: Path, start: int, frames: int) -> np.ndarray:
    """Read ``frames`` frames of a file as they are, float32 (frames, channels); raises what :func:`read_audio` does."""
    with opened(path) as stream:
        # A frame of MP3 refers to bits of earlier ones.
        ahead = min(start, _MP3_AHEAD) if stream.format == "MP3" else 0
        if start:
            stream.seek(start - ahead)
        samples = stream.read(ahead + frames, dtype="float32", always_2d=True)[ahead:]
    if len(samples) < frames:
        raise UserError(
            f"{path}: is truncated or damaged (its header promises {start + frames} frames or more, but "
            f"{start + len(samples)} can be read); copy or download it again, or leave it out"
        )
    check_finite(samples, path, start)
    return samples


def check_finite(samples: np.ndarray, path: str | os.PathLike[str], start: int = 0) -> None:
    """Check that samples (frames, …) are numbers.

    Raises:
        UserError: one is NaN or infinite; names the file and its frame, counted from ``start``.
    """
    finite = np.isfinite(samples)
    if not finite.all():
        frame = int(np.argmin(finite.reshape(len(samples), -1).all(1)))
        kind = "NaN" if np.isnan(samples[frame]).any() else "infinite"
        raise UserError(f"{path}: a sample is {kind} (frame {start + frame}); repair the file or leave it out")


def _check_whole(path: Path, info: AudioInfo) -> None:
    """Check what libsndfile passes over in silence: a file that ends before its header says.

    Raises:
        UserError: the file is truncated.
    """
    size = path.stat().st_size
    missing = 0
    with path.open("rb") as stream:
        if info.format in ("WAV", "WAVEX"):
            missing = _wav_end(stream) - size
        elif info.format == "AIFF":
            missing = struct.unpack(">4xI", stream.read(8))[0] + 8 - size
        elif info.format == "OGG":
            stream.seek(max(0, size - (1 << 16)))
            tail = stream.read()
            last = tail.rfind(b"OggS")
            # A page: flags at 5, of which bit 2 marks the last one; number of segments at 26; their sizes (RFC 3533).
            if last < 0 or last + 27 > len(tail) or not tail[last + 5] & 4:
                missing = 1
            else:
                sizes = tail[last + 27 : last + 27 + tail[last + 26]]
                missing = last + 27 + tail[last + 26] + sum(sizes) - len(tail)
    if missing > 0:
        raise UserError(
            f"{path}: is truncated (it ends before its header says); copy or download it again, or leave it out"
        )


def _wav_end(stream: Any) -> int:
    """Return where the samples of a WAV file end by its header; 0 where that does not say (a stream)."""
    stream.seek(12)
    while len(header := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"data":
            return 0 if size in (0, 0xFFFFFFFF, 0x7FFFFFFF) else stream.tell() + size
        stream.seek(size + size % 2, os.SEEK_CUR)
    return 0
