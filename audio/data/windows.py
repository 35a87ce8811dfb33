"""Windows of one length over recordings of any length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Windows: which recording, and where each may begin.

    Args:
        row: int64, index of the recording.
        first: int64, the earliest first frame.
        last: int64, the latest first frame; the same where the window stands still.
        frames: int64, length; shorter than asked for where the recording is, or at its end.
    """

    row: np.ndarray
    first: np.ndarray
    last: np.ndarray
    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def start(self, index: int, generator: np.random.Generator) -> int:
        """Return the first frame of a window, drawn from where it may begin."""
        first, last = int(self.first[index]), int(self.last[index])
        return first if first == last else int(generator.integers(first, last + 1))


def list_windows(lengths: np.ndarray, length: int | None, *, random: bool) -> Windows:
    """Return windows that together cover every recording.

    Args:
        lengths: int64, frames of each recording, at least 1.
        length: frames of a window; whole recordings where None.
        random: where a recording of n windows is longer than one, its k-th window begins anywhere in the k-th of n
            equal stretches of the possible beginnings; otherwise the windows follow one another without overlap, and
            the last one is shorter.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if length is None:
        zeros = np.zeros_like(lengths)
        return Windows(np.arange(len(lengths)), zeros, zeros, lengths)
    counts = -(-lengths // length)
    row = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    own, count = lengths[row], counts[row]
    if not random:
        first = number * length
        return Windows(row, first, first, np.minimum(length, own - first))
    room = np.maximum(own - length, 0)
    first, last = number * room // count, (number + 1) * room // count
    return Windows(row, first, last, np.minimum(length, own))
