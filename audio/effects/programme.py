"""Programme material for effect models, made of the packaged digits and of notes and drums, split by speaker and seed.

``python -m longscan.audio.effects.programme FOLDER`` writes mono 16-bit WAV files of ten seconds and ``manifest.csv``,
which data modules read (columns path, name, split and kind). Half of each split is

- ``speech``: recorded digits of one speaker in random order, each at a level of its own (peaks 0 to 18 dB below that of
  the file), with pauses of 30 to 500 ms. The speakers of training, validation and test differ. The recordings are of
  8 kHz and brought to the rate of the files by Fourier interpolation, so that nothing is above 4 kHz;
- ``music``: synthetic, of the whole band: plucked bass, chords and melody of decaying harmonics, drums of swept sines
  and noise, in bars whose levels differ by up to 18 dB.

Peaks lie at -6 dB of full scale. Files are a pure function of the seed and their number.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...core.cli import Parser, guarded
from ...core.errors import UserError
from ...core.files import replacing
from ..data.files import AudioFormat
from ..data.manifest import Recordings
from ..data.sources import SPOKEN_DIGITS_RATE, read_collection
from ..data.writing import write_audio

#: Who is heard in which split.
SPEAKERS = {"train": ("george", "jackson", "lucas", "nicolas"), "val": ("theo",), "test": ("yweweler",)}
#: Files of each kind in each split.
FILES = {"train": 30, "val": 3, "test": 6}
SECONDS = 10.0
PEAK = 10 ** (-6 / 20)


def write_programme(folder: Path, sample_rate: int = 44_100, *, seed: int = 0, seconds: float = SECONDS) -> Path:
    """Write the files and their manifest, and return the path of the latter.

    Args:
        folder: where to.
        sample_rate: of the files in hertz, a multiple of 100.
        seed: decides all of it.
        seconds: length of a file.

    Raises:
        UserError: a rate below that of the digits or no multiple of 100, or the folder cannot be written to.
    """
    if sample_rate < SPOKEN_DIGITS_RATE or sample_rate % 100:
        raise UserError(f"--sample-rate {sample_rate}: must be a multiple of 100 and at least {SPOKEN_DIGITS_RATE}")
    if not seconds > 0:
        raise UserError(f"--seconds {seconds:g}: must be positive")
    digits, rows = read_collection("spoken_digits", None), []
    for place, (split, count) in enumerate(FILES.items()):
        for number in range(count):
            voice = SPEAKERS[split][number % len(SPEAKERS[split])]
            kinds: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
                "speech": partial(speech, digits, voice, seconds=seconds, sample_rate=sample_rate),
                "music": partial(music, seconds=seconds, sample_rate=sample_rate),
            }
            for kind, make in kinds.items():
                samples = make(np.random.default_rng([seed, place, number, kind == "music"]))
                name = f"{split}_{kind}_{number:02d}"
                write_audio(folder / f"{name}.wav", PEAK * samples / np.abs(samples).max(), sample_rate)
                rows.append((f"{name}.wav", name, split, kind))
    with replacing(folder / "manifest.csv") as path, path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("path", "name", "split", "kind"))
        writer.writerows(rows)
    return folder / "manifest.csv"


def speech(
    digits: Recordings, speaker: str, generator: np.random.Generator, *, seconds: float, sample_rate: int
) -> np.ndarray:
    """Return words of a speaker and pauses, (frames,)."""
    frames, wanted = round(seconds * sample_rate), AudioFormat(SPOKEN_DIGITS_RATE)
    rows = np.flatnonzero(digits.columns["speaker"] == speaker)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < frames:
        word = digits.read(int(generator.choice(rows)), wanted)[0][:, 0]
        word = interpolated(word / np.abs(word).max(), SPOKEN_DIGITS_RATE, sample_rate)
        pause = 0.03 * (0.5 / 0.03) ** generator.random()
        parts += [word * 10 ** (-18 * generator.random() / 20), np.zeros(round(pause * sample_rate))]
    return np.concatenate(parts)[:frames]


def interpolated(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Return samples (frames,) at a higher rate by zeros in their spectrum, both rates multiples of 100."""
    step = rate // 100
    frames = -(-len(samples) // step) * step
    longer = frames // step * (new_rate // 100)
    return np.fft.irfft(np.fft.rfft(samples, frames), longer) * (longer / frames)


def music(generator: np.random.Generator, *, seconds: float, sample_rate: int) -> np.ndarray:
    """Return bars of bass, chords, melody and drums, (frames,)."""
    frames = round(seconds * sample_rate)
    result = np.zeros(frames)
    beat = 60 / generator.uniform(80, 160)
    root, minor = int(generator.integers(33, 45)), bool(generator.random() < 0.5)
    scale = np.array([0, 2, 3, 5, 7, 8, 10] if minor else [0, 2, 4, 5, 7, 9, 11])
    # Loudness of bass, chords, melody and drums, how dull each tone is, and how long it rings, for the whole file.
    levels = 10 ** (-generator.uniform(0, 15, 4) / 20)
    dullness, ringing = generator.uniform(0.7, 2.0, 3), 0.1 * 20 ** generator.random(3)
    bar_level = 1.0
    for count in range(int(seconds / beat) + 1):
        begin = count * beat
        if count % 4 == 0:
            bar_level = 10 ** (-generator.uniform(0, 18) / 20)
            degree = int(generator.choice([0, 3, 4, 5]))
        notes = [(0, begin, root + _pitch(scale, degree))]
        if count % 2 == 0:
            notes += [(1, begin, root + 24 + _pitch(scale, degree + above)) for above in (0, 2, 4)]
        for half in (0.0, 0.5):
            if generator.random() < 0.5:
                notes.append((2, begin + half * beat, root + 36 + _pitch(scale, int(generator.integers(0, 10)))))
        for voice, start, pitch in notes:
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            sound = tone(frequency, ringing[voice], dullness[voice], sample_rate)
            _add(result, sound * (bar_level * levels[voice] * generator.uniform(0.5, 1)), start, sample_rate)
        for half in (0.0, 0.5):
            kind = ("kick", "snare")[count % 2] if half == 0 else "hat"
            if generator.random() < 0.8:
                sound = drum(kind, generator, sample_rate)
                loudness = bar_level * levels[3] * generator.uniform(0.5, 1)
                _add(result, sound * loudness, begin + half * beat, sample_rate)
    return result


def _pitch(scale: np.ndarray, degree: int) -> int:
    return int(scale[degree % 7]) + 12 * (degree // 7)


def tone(frequency: float, ringing: float, dullness: float, sample_rate: int) -> np.ndarray:
    """Return a plucked note: harmonics of amplitude k^-dullness that decay the faster the higher, (frames,)."""
    time = np.arange(round(min(4 * ringing, 2.0) * sample_rate)) / sample_rate
    turning = np.exp((2j * np.pi * frequency - 0.3 / ringing) * time)
    harmonic, result = np.exp(-time / ringing).astype(np.complex128), np.zeros_like(time)
    for k in range(1, min(24, int(0.45 * sample_rate / frequency)) + 1):
        harmonic *= turning
        result += k**-dullness * harmonic.imag
    return result * -np.expm1(-time / 0.003)


def drum(kind: str, generator: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Return a ``kick`` (a sine that falls to 50 Hz), a ``snare`` or a ``hat`` (noise, the latter differenced)."""
    time = np.arange(round(0.3 * sample_rate)) / sample_rate
    noise = generator.standard_normal(len(time)) / 3
    if kind == "kick":
        return 1.5 * np.exp(-time / 0.08) * np.sin(2 * np.pi * (50 * time - 4 * np.exp(-time / 0.03)))
    if kind == "snare":
        return np.exp(-time / 0.06) * (noise + 0.5 * np.sin(2 * np.pi * 190 * time))
    return np.exp(-time / 0.025) * np.diff(noise, prepend=0.0)


def _add(whole: np.ndarray, part: np.ndarray, start: float, sample_rate: int) -> None:
    begin = round(start * sample_rate)
    part = part[: max(len(whole) - begin, 0)]
    whole[begin : begin + len(part)] += part


def main(argv: Sequence[str]) -> int:
    """Write the files."""
    parser = Parser(prog="python -m longscan.audio.effects.programme", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument("--sample-rate", type=int, default=44_100, help="in hertz [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="decides every file [%(default)s]")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a file [%(default)s]")
    arguments = parser.parse_args(argv)
    print(write_programme(arguments.folder, arguments.sample_rate, seed=arguments.seed, seconds=arguments.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
