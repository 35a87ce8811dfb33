"""Archives of images: NumPy's ``.npz`` in three layouts, CIFAR's own batches, scikit-learn's digits."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.files import require_file
from .images import EncodedBytes, Images, ImageStore, Pixels

_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
#: Names of arrays of pixels and their labels in archives of Keras (``x_train``) and MedMNIST (``train_images``).
_PIXELS = ("x_{0}", "{0}_images", "{0}_x")
_LABELS = ("y_{0}", "{0}_labels", "{0}_y")


def read_npz(path: str) -> Images:
    """Return the images of an ``.npz`` file, whose splits are in its arrays' names.

    Layouts, for each split (``train``, ``val``, ``test``):

    - ``train_jpeg`` (the bytes of all files, uint8), ``train_len`` (bytes of each), ``train_y`` (class of each);
    - ``x_train`` and ``y_train``, as Keras has them, or ``train_images`` and ``train_labels``, as MedMNIST: uint8
      (images, height, width) or (images, height, width, channels), and (images,) or (images, 1).

    ``classes`` holds their names; otherwise they are called by their numbers.

    Raises:
        UserError: the file is missing, damaged, holds pickled objects, or has another layout.
    """
    file = require_file(path)
    arrays = _arrays(file)
    parts: list[Images] = []
    for word, split in _SPLITS.items():
        if f"{word}_jpeg" in arrays:
            parts.append(_encoded(file, arrays, word, split))
        else:
            pixels = next((key.format(word) for key in _PIXELS if key.format(word) in arrays), None)
            if pixels is not None:
                labels = next((key.format(word) for key in _LABELS if key.format(word) in arrays), None)
                parts.append(_decoded(file, arrays, pixels, labels, split))
    if not parts:
        found = ", ".join(list(arrays)[:6])
        raise UserError(
            f"{file}: its arrays ({found}) are not images of splits; name them x_train, y_train, x_test, y_test"
        )
    names = None
    if "classes" in arrays:
        names = tuple(n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in arrays["classes"].ravel())
    return joined(str(file), parts, names)


def read_cifar(path: str | Path) -> Images:
    """Return CIFAR-10 or CIFAR-100 as their authors distribute it: the folder of Python batches, or its ``.tar.gz``.

    The batches are pickles; only arrays and plain values in them are read, code is refused.

    Raises:
        UserError: a file is missing or damaged, or holds code.
    """
    from .cifar import read_batches

    return read_batches(Path(path).expanduser())


def read_digits() -> Images:
    """Return the 1,797 handwritten digits of scikit-learn, 8 × 8, grey, in their order: the last ones are by other
    writers than the first. They have no given split.

    Raises:
        UserError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("the digits are in scikit-learn, which is missing; pip install scikit-learn") from error
    found: Any = load_digits()
    values = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return Images(
        "digits",
        np.array([f"{index:04d}" for index in range(len(values))], dtype=object),
        Pixels(values),
        np.arange(len(values)),
        labels=found.target.astype(np.int64),
        class_names=tuple(str(name) for name in found.target_names),
        pixel_size=(8, 8),
    )


def _arrays(file: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(file):
        raise UserError(f"{file}: is no .npz archive or is damaged; copy it again")
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise UserError(f"{file}: refused, since it holds pickled objects; save it with plain arrays") from error
        raise UserError(f"{file}: is no .npz archive or is damaged; copy it again") from error
    except (OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{file}: is no .npz archive or is damaged; copy it again") from error


def _encoded(file: Path, arrays: Mapping[str, np.ndarray], word: str, split: str) -> Images:
    for name in (f"{word}_len", f"{word}_y"):
        if name not in arrays:
            raise UserError(f"{file}: has {word}_jpeg but no {name}; add it")
    data, lengths = arrays[f"{word}_jpeg"], arrays[f"{word}_len"].astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if offsets[-1] != len(data):
        raise UserError(
            f"{file}: {word}_len adds up to {offsets[-1]} bytes, {word}_jpeg has {len(data)}; copy it again"
        )
    return archive_part(file, split, EncodedBytes(data, offsets), len(lengths), arrays[f"{word}_y"], f"{word}_y")


def _decoded(file: Path, arrays: Mapping[str, np.ndarray], pixels: str, labels: str | None, split: str) -> Images:
    values = arrays[pixels]
    channels = values.shape[3:] or (1,)
    if values.dtype != np.uint8 or values.ndim not in (3, 4) or channels[0] not in (1, 3, 4):
        raise UserError(
            f"{file}: {pixels} is {values.dtype} {values.shape}; expected uint8 (images, height, width) or "
            "(images, height, width, channels)"
        )
    given = None if labels is None else arrays[labels]
    return archive_part(file, split, Pixels(values), len(values), given, labels or "", values.shape[1:3])


def archive_part(
    file: Path,
    split: str,
    store: ImageStore,
    count: int,
    labels: np.ndarray | None,
    label_name: str,
    size: tuple[int, ...] | None = None,
) -> Images:
    """Return one split of an archive.

    Args:
        file: the archive.
        split: ``"train"``, ``"val"`` or ``"test"``.
        store: holds its images.
        count: number of them.
        labels: class of each, integers (count,) or (count, 1).
        label_name: what messages call the labels.
        size: height and width of all.

    Raises:
        UserError: labels of another shape or kind.
    """
    if labels is not None:
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or (count and labels.min() < 0):
            raise UserError(
                f"{file}: {label_name} is {labels.dtype} {labels.shape}; expected the class index of each of {count} "
                "images"
            )
        labels = labels.astype(np.int64)
    names = np.array([f"{split}/{index}" for index in range(count)], dtype=object)
    where = None if size is None else (int(size[0]), int(size[1]))
    given = np.full(count, split, dtype=object)
    return Images(str(file), names, store, np.arange(count), labels, None, given, where)


class _Joined:
    """Several stores, one after the other."""

    def __init__(self, stores: list[ImageStore], counts: list[int]) -> None:
        self.stores, self.starts = stores, np.concatenate([[0], np.cumsum(counts)])

    def read(self, row: int, where: str, channels: int) -> Any:
        """See `ImageStore`."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.stores[number].read(row - int(self.starts[number]), where, channels)

    def pixels(self, rows: np.ndarray, channels: int) -> np.ndarray | None:
        """See `Pixels`; for rows of one store."""
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        direct = getattr(self.stores[int(numbers[0])], "pixels", None) if len(rows) else None
        if direct is None or (numbers != numbers[0]).any():
            return None
        found: np.ndarray | None = direct(rows - self.starts[numbers[0]], channels)
        return found


def joined(origin: str, parts: list[Images], names: tuple[str, ...] | None) -> Images:
    """Return the splits of an archive as one list; classes without ``names`` are called by their numbers.

    Raises:
        UserError: a class without a name.
    """
    counts = [len(part) for part in parts]
    labels = None
    if all(part.labels is not None for part in parts):
        labels = np.concatenate([part.labels for part in parts])  # type: ignore[misc]
        highest = int(labels.max()) if len(labels) else 0
        names = tuple(str(index) for index in range(highest + 1)) if names is None else names
        if highest >= len(names):
            raise UserError(f"{origin}: has the class {highest}, but {len(names)} class names; add the missing ones")
    sizes = {part.pixel_size for part in parts}
    return Images(
        origin,
        np.concatenate([part.names for part in parts]),
        _Joined([part.store for part in parts], counts),
        np.arange(sum(counts)),
        labels,
        names,
        np.concatenate([part.splits for part in parts if part.splits is not None]),
        sizes.pop() if len(sizes) == 1 else None,
    )
