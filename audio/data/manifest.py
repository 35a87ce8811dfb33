"""Lists of recordings: from a folder of audio files, or a CSV or JSONL manifest.

A manifest has a row for each recording. Columns: ``path`` (relative to the manifest's folder), and where wanted
``label``, ``name``, ``split`` (train, val or test), ``start`` and ``frames`` (a part of the file, in its own frames),
and any others, such as controls.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ...core.errors import UserError, nearest
from ...core.files import require_file
from .files import ENDINGS, AudioFormat, AudioInfo, read_audio, read_info

#: Names of the splits as they are written in folders and manifests.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
#: Endings of manifests.
MANIFEST_ENDINGS = (".csv", ".tsv", ".jsonl")
_KNOWN = ("path", "label", "name", "split", "start", "frames")


@dataclass
class Recordings:
    """Recordings, each a whole file or a part of one.

    Args:
        origin: the folder or manifest that they come from, for messages.
        paths: absolute path of the file of each (object).
        names: how each is called in predictions (object).
        labels: class of each as text (object); None where there are none.
        splits: split of each (``"train"``, ``"val"``, ``"test"``; object); None where the origin says nothing.
        starts: int64, first frame in the file.
        counts: int64, frames in the file from there; -1 for the rest of it.
        columns: the other columns of the manifest, as text (object).
        lines: line of the manifest, 0 for files of a folder.
    """

    origin: str
    paths: np.ndarray
    names: np.ndarray
    labels: np.ndarray | None
    splits: np.ndarray | None
    starts: np.ndarray
    counts: np.ndarray
    lines: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    _infos: dict[str, AudioInfo] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows: np.ndarray) -> Recordings:
        """The recordings at ``rows`` (indices or a bool mask)."""
        return replace(
            self,
            paths=self.paths[rows],
            names=self.names[rows],
            labels=None if self.labels is None else self.labels[rows],
            splits=None if self.splits is None else self.splits[rows],
            starts=self.starts[rows],
            counts=self.counts[rows],
            lines=self.lines[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
        )

    def where(self, index: int) -> str:
        """The place of a recording, for errors."""
        return f"{self.origin}:{self.lines[index]}" if self.lines[index] else str(self.paths[index])

    def check(self, wanted: AudioFormat) -> np.ndarray:
        """Look at every file's header, and return the length of each recording in frames at the rate that is wanted.

        Raises:
            UserError: a file is missing (all are looked for first) or no audio, of another format, or shorter than its
                part.
        """
        missing = [index for index in range(len(self)) if not Path(self.paths[index]).exists()]
        if missing:
            more = f" ({len(missing)} files are missing)" if len(missing) > 1 else ""
            raise UserError(
                f"{self.where(missing[0])}: no such file: {self.paths[missing[0]]}{more}; correct the path, which is "
                "relative to the manifest's folder, or remove the row"
            )
        lengths = np.empty(len(self), dtype=np.int64)
        show = len(self) < 5000 or None  # None: a bar where there is a terminal
        for index in tqdm(range(len(self)), desc="reading headers", unit=" files", disable=show, leave=False):
            info = self._part_info(index)
            wanted.check(self.paths[index], info)
            lengths[index] = wanted.length(info)
        return lengths

    def read(
        self, index: int, wanted: AudioFormat, *, start: int = 0, frames: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Read a recording, or a crop of it, as :func:`longscan.audio.data.files.read_audio` does.

        Args:
            index: which.
            wanted: format.
            start: first frame of the crop, at the rate that is wanted.
            frames: how many; to its end where None.
        """
        path, info = str(self.paths[index]), self._info(index)
        if self.starts[index] == 0 and self.counts[index] < 0:
            return read_audio(path, wanted, start=start, frames=frames, info=info)
        if wanted.sample_rate not in (None, info.sample_rate):
            # A part is a recording of its own: what lies around it must not leak in through the filter.
            return _resampled_part(path, wanted, info, int(self.starts[index]), self._count(index), start, frames)
        frames = self._count(index) - start if frames is None else frames
        return read_audio(path, wanted, start=int(self.starts[index]) + start, frames=frames, info=info)

    def _count(self, index: int) -> int:
        count = int(self.counts[index])
        return count if count >= 0 else self._info(index).frames - int(self.starts[index])

    def _info(self, index: int) -> AudioInfo:
        path = str(self.paths[index])
        if path not in self._infos:
            self._infos[path] = read_info(path)
        return self._infos[path]

    def _part_info(self, index: int) -> AudioInfo:
        info, start, count = self._info(index), int(self.starts[index]), self._count(index)
        if start < 0 or count < 1 or start + count > info.frames:
            raise UserError(
                f"{self.where(index)}: frames {start} to {start + count} are not inside the {info.frames} frames of "
                f"{self.paths[index]}; correct start and frames"
            )
        return replace(info, frames=count)


def _resampled_part(
    path: str, wanted: AudioFormat, info: AudioInfo, begin: int, count: int, start: int, frames: int | None
) -> tuple[np.ndarray, int]:
    from ..resampling import resample

    assert wanted.sample_rate is not None
    native = replace(wanted, sample_rate=info.sample_rate)
    samples, _ = read_audio(path, native, start=begin, frames=count, info=info)
    samples = resample(samples, info.sample_rate, wanted.sample_rate)
    return samples[start : None if frames is None else start + frames], wanted.sample_rate


def read_folder(folder: str | Path, *, labelled: bool) -> Recordings:
    """List the audio files of a folder, sorted by path.

    With labels the class of a file is the subfolder that it is in: ``yes/1.wav``, or with splits ``train/yes/1.wav``.
    Without labels files may be at any depth; a first folder named for a split (train, val, valid, validation, dev,
    test) is one. Names that begin with ``_`` or ``.`` are passed over (as ``_background_noise_``).

    Raises:
        UserError: no such folder, no audio file, or files beside the class folders.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; check the path")
    files = [
        file
        for file in sorted(root.rglob("*"))
        if file.suffix.lower() in ENDINGS and not any(p[0] in "._" for p in file.relative_to(root).parts)
    ]
    if not files:
        raise UserError(f"{root}: has no audio file ({', '.join(ENDINGS)}); is it the right folder?")
    parts = [file.relative_to(root).parts for file in files]
    split = all(len(part) > 1 and part[0].lower() in SPLITS for part in parts)
    if labelled:
        depth = 2 if split else 1
        for file, part in zip(files, parts, strict=True):
            if len(part) != depth + 1:
                raise UserError(
                    f"{file}: is not in a class folder; the class of a file is the folder it is in "
                    f"({root.name}/{'train/' if split else ''}CLASS/{file.name})"
                )
    return make_recordings(
        str(root),
        files,
        names=["/".join(part) for part in parts],
        labels=[part[-2] for part in parts] if labelled else None,
        splits=[SPLITS[part[0].lower()] for part in parts] if split else None,
    )


def make_recordings(
    origin: str,
    paths: Sequence[Path],
    *,
    names: Sequence[str],
    labels: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    starts: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
    lines: Sequence[int] | None = None,
    columns: dict[str, Sequence[str]] | None = None,
) -> Recordings:
    """Return recordings of lists; see `Recordings`."""
    size = len(paths)
    return Recordings(
        origin,
        _objects([str(path) for path in paths]),
        _objects(names),
        None if labels is None else _objects(labels),
        None if splits is None else _objects(splits),
        np.array(starts if starts is not None else [0] * size, dtype=np.int64),
        np.array(counts if counts is not None else [-1] * size, dtype=np.int64),
        np.array(lines if lines is not None else [0] * size, dtype=np.int64),
        {name: _objects(values) for name, values in (columns or {}).items()},
    )


def _objects(values: Sequence[str]) -> np.ndarray:
    result = np.empty(len(values), dtype=object)
    result[:] = list(values)
    return result


def read_manifest(path: str | Path, *, label_column: str | None = None, path_column: str = "path") -> Recordings:
    """Read a manifest: ``.csv``, ``.tsv`` (with a header), or ``.jsonl``; columns as the module says.

    Args:
        path: the file.
        label_column: the column of the class, which must be there; where None, ``label`` if it is.
        path_column: the column of the file.

    Raises:
        UserError: no such file, an unknown ending, no such column, no row, a row of another width, an
            empty path or class, a start or a number
            of frames that is none, or an unknown split; with file and line.
    """
    file = require_file(path)
    rows, lines = _rows(file)
    names = {name for row in rows for name in row}
    for column in (path_column, label_column):
        if column is not None and column not in names:
            raise UserError(f"{file}: no column {column!r} ({nearest(column, names)})")
    values: dict[str, list[str]] = {name: [] for name in sorted(names)}
    for row, line in zip(rows, lines, strict=True):
        for name, column_values in values.items():
            if name not in row:
                raise UserError(f"{file}:{line}: has no {name!r}, which other rows have; add it")
            column_values.append(row[name])
        if not row[path_column]:
            raise UserError(f"{file}:{line}: the {path_column} is empty; name a file or remove the row")
        if label_column is not None and not row[label_column]:
            raise UserError(f"{file}:{line}: the {label_column} is empty; name a class or remove the row")
    label = label_column or ("label" if "label" in values else None)
    splits = values.get("split")
    if splits is not None:
        for row_split, line in zip(splits, lines, strict=True):
            if row_split.lower() not in SPLITS:
                raise UserError(f"{file}:{line}: unknown split {row_split!r} ({nearest(row_split, SPLITS)})")
        splits = [SPLITS[row_split.lower()] for row_split in splits]
    return make_recordings(
        str(file),
        [file.parent / Path(value).expanduser() for value in values[path_column]],
        names=values.get("name", values[path_column]),
        labels=None if label is None else values[label],
        splits=splits,
        starts=_integers(file, lines, values, "start"),
        counts=_integers(file, lines, values, "frames"),
        lines=lines,
        columns={name: column for name, column in values.items() if name not in _KNOWN and name != label},
    )


def _rows(file: Path) -> tuple[list[dict[str, str]], list[int]]:
    """The rows of a manifest as text, and their lines."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error.reason}); is it a manifest?") from error
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    if file.suffix.lower() == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 is no end
            if not line.strip():
                continue
            try:
                found: Any = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{file}:{number}: is not JSON ({error.msg}); write one object per line") from error
            if not isinstance(found, dict):
                raise UserError(f"{file}:{number}: is not a JSON object; write one object per line")
            rows.append(
                {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
            )
            lines.append(number)
    elif file.suffix.lower() in (".csv", ".tsv"):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise UserError(f"{file}:1: a column name occurs twice; every column needs its own")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(f"{file}:{reader.line_num}: {len(row)} columns, the header has {len(header)}")
            rows.append({name: value.strip() for name, value in zip(header, row, strict=True)})
            lines.append(reader.line_num)
    else:
        raise UserError(f"{file}: unknown ending {file.suffix!r} of a manifest; use .csv, .tsv or .jsonl")
    if not rows:
        raise UserError(f"{file}: has no row; is it the right file?")
    return rows, lines


def _integers(file: Path, lines: list[int], values: dict[str, list[str]], name: str) -> list[int] | None:
    if name not in values:
        return None
    result = []
    for line, value in zip(lines, values[name], strict=True):
        if not value.isdecimal():
            raise UserError(f"{file}:{line}: {name} {value!r} is not a number of frames; write a whole number")
        result.append(int(value))
    return result
