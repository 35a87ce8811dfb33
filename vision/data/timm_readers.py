"""What timm's dataset readers open: tar files of images, Hugging Face data sets (``hfds/NAME``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from .decoding import convert_image, decode_image
from .folders import SPLIT_FOLDERS
from .images import Images

#: Readers of streams, whose images have no numbers by which a run could be resumed.
_STREAMS = ("hfids", "tfds", "wds")


class ReaderStore:
    """Images of a timm reader. It is opened anew in every process: file positions cannot be shared."""

    def __init__(self, name: str, root: str | None, split: str) -> None:
        self.name, self.root, self.split = name, root, split
        self._reader: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}

    @property
    def reader(self) -> Any:
        """The reader, opened when it is first asked for in this process."""
        if self._reader is None or self._process != os.getpid():
            self._reader, self._process = open_reader(self.name, self.root, self.split), os.getpid()
        return self._reader

    def read(self, row: int, where: str, channels: int) -> Any:
        """See `ImageStore`."""
        import tarfile

        try:
            source, _ = self.reader[row]
            data = source.read() if hasattr(source, "read") else source
        except (OSError, tarfile.TarError, EOFError) as error:
            raise UserError(f"{where}: cannot be read ({error}); replace or remove it") from error
        if isinstance(data, bytes):
            return decode_image(data, where, channels)
        return convert_image(data, where, channels)


def open_reader(name: str, root: str | None, split: str) -> Any:
    """Return timm's reader.

    Raises:
        UserError: it cannot be opened, or reads a stream.
    """
    try:
        from timm.data.readers import create_reader
    except ImportError as error:
        raise UserError("tar files and timm's readers need timm; pip install 'longscan[vision]'") from error
    prefix = name.partition("/")[0] if "/" in name else ""
    if prefix.lower() in _STREAMS:
        raise UserError(
            f"reader={name!r}: reads a stream, in which training cannot be resumed; unpack it to a folder or tar file"
        )
    try:
        return create_reader(name, root=root, split=split)
    except ImportError as error:
        raise UserError(f"reader={name!r}: {error.name or error} is missing; pip install {error.name or ''}") from error
    except (AssertionError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160] or "no images found"
        raise UserError(f"{name or root}: timm's reader cannot open its split {split!r} ({reason})") from error


def read_timm(name: str, root: str | None, split: str) -> Images:
    """Return the images of one split of a data set, or all of a tar file with its splits (``train/CLASS/…``), if any.

    Args:
        name: of the reader, ``hfds/NAME``; empty for a tar file at ``root``.
        root: tar file, or folder of the reader's cache.
        split: as the data set calls it.

    Raises:
        UserError: it cannot be opened, or only some images of a tar file are in folders of splits.
    """
    if not name:
        path = Path(root or "").expanduser()
        if not path.is_file():
            raise UserError(f"{path}: no such file; check the path")
        root = str(path)
    store = ReaderStore(name, root, split)
    reader = store.reader
    count = len(reader)
    names = np.array([reader.filename(index, basename=False) for index in range(count)], dtype=object)
    known = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None)
    classes = sorted(known, key=known.__getitem__) if known else None
    labels = _labels(reader, count)
    origin = str(root if not name else f"{name} ({split})")
    class_names = None if classes is None else tuple(str(label) for label in classes)
    if labels is not None and class_names is None:
        class_names = tuple(str(index) for index in range(int(labels.max()) + 1))
    splits = None if name else _split_folders(origin, names)
    return Images(origin, names, store, np.arange(count), labels, class_names, splits)


def _split_folders(origin: str, names: np.ndarray) -> np.ndarray | None:
    """The split of each image by the folder that its class folder is in; None where there are none."""
    above = [Path(name).parts[-3].lower() if len(Path(name).parts) > 2 else "" for name in names]
    found = np.array([SPLIT_FOLDERS.get(folder) for folder in above], dtype=object)
    known = found != None  # noqa: E711 (of each)
    if known.any() and not known.all():
        given, other = names[np.argmax(known)], names[np.argmin(known)]
        raise UserError(f"{origin}: {given} is in a folder of a split, {other} is not; pack both alike")
    return found if known.any() else None


def _labels(reader: Any, count: int) -> np.ndarray | None:
    dataset = getattr(reader, "dataset", None)
    if dataset is not None:  # Hugging Face: a column, without decoding images
        values = dataset[reader.label_key]
        if getattr(reader, "remap_class", False):
            raise UserError("a class map of timm's reader is not supported; leave it away")
        return np.asarray(values, dtype=np.int64)
    targets = getattr(reader, "targets", None)  # tar files
    if targets is not None:
        return np.asarray(targets, dtype=np.int64)
    return np.array([reader[index][1] for index in range(count)], dtype=np.int64)
