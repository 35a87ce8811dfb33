"""The packaged part of the Free Spoken Digit Dataset, made from the whole.

``git clone https://github.com/Jakobovski/free-spoken-digit-dataset`` (commit 26eb9aa) fetches the 3,000 recordings;
``python -m longscan.audio.datasets.build_spoken_digits free-spoken-digit-dataset FOLDER`` writes, for each speaker, one
FLAC file with the recordings one after the other, and ``recordings.csv``, which says where each is. Not a bit of a
sample is changed.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core.cli import Parser, guarded
from ...core.files import replacing
from ..data.files import AudioFormat, read_audio
from ..data.sources import SPOKEN_DIGITS_RATE, read_spoken_digits
from ..data.writing import write_audio

#: Recordings with a smaller index are kept: 5 test and 20 training recordings of each digit and speaker.
KEPT = 25


def write_subset(source: Path, folder: Path, kept: int = KEPT) -> int:
    """Write the recordings of ``source`` whose index is below ``kept`` to ``folder``; return how many there are.

    Raises:
        UserError: something is wrong with the recordings, or the folder cannot be written to.
    """
    recordings = read_spoken_digits(source)
    wanted = AudioFormat(SPOKEN_DIGITS_RATE, 1)
    indices = recordings.columns["index"].astype(np.int64)
    rows: list[tuple[str | int, ...]] = []
    for speaker in sorted(set(recordings.columns["speaker"])):
        chosen = np.flatnonzero((recordings.columns["speaker"] == speaker) & (indices < kept))
        chosen = chosen[np.lexsort((recordings.labels[chosen].astype(str), indices[chosen]))]  # type: ignore[index]
        parts, start = [], 0
        for row in chosen:
            samples, _ = read_audio(recordings.paths[row], wanted)
            assert recordings.labels is not None
            assert recordings.splits is not None
            values = (recordings.names[row], recordings.labels[row], recordings.splits[row], speaker, int(indices[row]))
            rows.append((f"{speaker}.flac", start, len(samples), *values))
            parts.append(samples)
            start += len(samples)
        write_audio(folder / f"{speaker}.flac", np.concatenate(parts), SPOKEN_DIGITS_RATE)
    with replacing(folder / "recordings.csv") as path, path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("path", "start", "frames", "name", "label", "split", "speaker", "index"))
        writer.writerows(rows)
    return len(rows)


def main(argv: Sequence[str]) -> int:
    """Write the files."""
    parser = Parser(prog="python -m longscan.audio.datasets.build_spoken_digits", description=__doc__)
    parser.add_argument("source", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("folder", type=Path, help="where to write")
    arguments = parser.parse_args(argv)
    count = write_subset(arguments.source, arguments.folder)
    size = sum(file.stat().st_size for file in arguments.folder.glob("*.flac"))
    print(f"wrote {count} recordings to {arguments.folder} ({size:,} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
