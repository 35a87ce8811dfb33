"""Recordings of known collections with their official splits: spoken digits, Speech Commands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ..datasets import dataset_path
from .manifest import Recordings, make_recordings, read_manifest

SPOKEN_DIGITS_RATE = 8000
SPEECH_COMMANDS_RATE = 16000

#: The commands of the raw-speech benchmark (Romero et al. 2021, arXiv:2102.02611; Gu et al. 2022, arXiv:2111.00396).
SC10 = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
#: The digits, on which unconditional generation is measured ("SC09", Donahue et al. 2019, arXiv:1802.04208).
SC09 = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

#: Name of a collection: sample rate in hertz.
COLLECTIONS = {
    "spoken_digits": SPOKEN_DIGITS_RATE,
    "speech_commands_09": SPEECH_COMMANDS_RATE,
    "speech_commands_10": SPEECH_COMMANDS_RATE,
    "speech_commands_35": SPEECH_COMMANDS_RATE,
}

_DIGIT = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav", re.ASCII)
_TEST_INDICES = 5


def read_collection(name: str, folder: str | Path | None) -> Recordings:
    """Return the recordings of a collection of `COLLECTIONS`, with label, split and the column ``speaker``.

    Args:
        name: which.
        folder: where it lies; for spoken digits the packaged part where None.

    Raises:
        UserError: no folder where one is needed, or what is wrong with it.
    """
    if name == "spoken_digits":
        return read_manifest(dataset_path(name)) if folder is None else read_spoken_digits(folder)
    if folder is None:
        raise UserError(
            f"dataset {name!r} is not packaged; give folder, where speech_commands_v0.02.tar.gz was unpacked"
        )
    words = {"speech_commands_10": SC10, "speech_commands_09": SC09}.get(name)
    return read_speech_commands(folder, words)


def read_spoken_digits(folder: str | Path) -> Recordings:
    """Return the recordings of the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset).

    Files are named ``{digit}_{speaker}_{index}.wav``; by the official split, indices 0 to 4 are test recordings.
    Columns ``speaker`` and ``index``.

    Args:
        folder: its checkout, or the folder ``recordings`` in it.

    Raises:
        UserError: no such folder, or no such file in it.
    """
    root = Path(folder).expanduser().absolute()
    root = root / "recordings" if (root / "recordings").is_dir() else root
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; check the path")
    found = [(file, match) for file in sorted(root.iterdir()) if (match := _DIGIT.fullmatch(file.name))]
    if not found:
        raise UserError(f"{root}: has no file named DIGIT_SPEAKER_INDEX.wav; is it the Free Spoken Digit Dataset?")
    indices = [int(match["index"]) for _, match in found]
    return make_recordings(
        str(root),
        [file for file, _ in found],
        names=[file.stem for file, _ in found],
        labels=[match["digit"] for _, match in found],
        splits=["test" if index < _TEST_INDICES else "train" for index in indices],
        columns={"speaker": [match["speaker"] for _, match in found], "index": [str(index) for index in indices]},
    )


def read_speech_commands(folder: str | Path, words: tuple[str, ...] | None = None) -> Recordings:
    """Return the recordings of Speech Commands (Warden 2018, arXiv:1804.03209), with the official split.

    A class is a folder of WAV files; ``validation_list.txt`` and ``testing_list.txt`` name the files of those splits,
    the rest is for training. The column ``speaker`` is the first part of a file's name.

    Args:
        folder: where the archive was unpacked.
        words: classes; all folders where None.

    Raises:
        UserError: no such folder, list or class, or a list names a file of these classes that is missing.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; check the path")
    if words is None:
        words = tuple(sorted(place.name for place in root.iterdir() if place.is_dir() and place.name[0] not in "._"))
    files: list[Path] = []
    for word in words:
        found = sorted((root / word).glob("*.wav"))
        if not found:
            raise UserError(f"{root / word}: has no WAV file; a class of Speech Commands is a folder of them")
        files += found
    keys = {f"{file.parent.name}/{file.name}": index for index, file in enumerate(files)}
    splits = np.full(len(files), "train", dtype=object)
    for split, name in (("val", "validation_list.txt"), ("test", "testing_list.txt")):
        path = root / name
        if not path.is_file():
            raise UserError(f"{path}: no such file; the official split is in it, unpack the whole archive")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            key = line.strip()
            if not key or key.split("/")[0] not in words:
                continue
            if key not in keys:
                raise UserError(f"{path}:{number}: no such file: {root / key}; unpack the whole archive")
            splits[keys[key]] = split
    return make_recordings(
        str(root),
        files,
        names=list(keys),
        labels=[file.parent.name for file in files],
        splits=splits.tolist(),
        columns={"speaker": [file.name.partition("_")[0] for file in files]},
    )
