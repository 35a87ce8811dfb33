"""What the data modules of images have in common: where images come from, their size, and their splits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ...core.errors import UserError, nearest
from ...core.files import require_file
from ...core.training.hold_out import chosen_rows
from ...core.training.sourced_data import SourcedDataModule
from ..card import IMAGENET_MEAN, IMAGENET_STD
from .archives import read_cifar, read_digits, read_npz
from .folders import read_class_folders, read_plain_folder
from .images import Images, file_images
from .timm_readers import read_timm
from .transforms import check_interpolation

logger = logging.getLogger(__name__)

SplitKind = Literal["given", "random", "sorted"]


class ImagesDataModule(SourcedDataModule):
    """Images of a packaged set, a folder, an archive or one of timm's readers, split.

    A subclass says in ``make_dataset`` what a sample is.

    Args:
        dataset: ``"digits"``, scikit-learn's 1,797 handwritten digits.
        folder: a folder of images, in class folders where there are classes (``train/CLASS/…`` with splits).
        archive: an ``.npz`` file (`archives.read_npz`), CIFAR's Python batches (a folder or ``.tar.gz``), or a ``.tar``
            of class folders, which timm reads.
        reader: a reader of timm, ``hfds/NAME``.
        reader_splits: what the reader calls its splits, as in ``{train: train, val: validation}``.
        predict: what to predict: a file, a folder, or a list of files.
        img_size: height and width that images are brought to, or one number for both; that of the archive where None,
            224 for folders.
        channels: 3 (red, green, blue) or 1 (grey).
        mean: of each channel, of values between 0 and 1; ImageNet's where None, 0.5 for grey images.
        std: the same for the standard deviation.
        interpolation: by which images are resized in evaluation.
        crop_pct: side of the central crop over the side that images are resized to in evaluation; 0.875 where None, 1
            where images have the size already.
        split: ``"given"``, ``"random"`` or ``"sorted"`` (as listed; a folder by path); where None, given where there
            are given ones and random otherwise.
        val_fraction: share held out for validation where no validation images are given, of every class.
        test_fraction: share held out for the test, with the splits random and sorted.
        limit_train: use only this many training images, the first of an order shuffled by ``seed``.
        check_images: decode every image before training, so that a damaged one is told now and not when it is met.
        cache: keep the decoded images in memory (small images only).
        batch_size: samples per step and process in training.
        eval_batch_size: samples per batch in evaluation; ``batch_size`` where None.
        num_workers: loader processes.
        seed: of the order, the augmentation and random splits.
    """

    samples, source, predictable = "images", "a source that has some", "a file or a folder"

    def __init__(
        self,
        dataset: str | None = None,
        folder: str | None = None,
        archive: str | None = None,
        reader: str | None = None,
        reader_splits: dict[str, str] | None = None,
        predict: str | list[str] | None = None,
        img_size: int | list[int] | None = None,
        channels: int = 3,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        interpolation: str = "bicubic",
        crop_pct: float | None = None,
        split: SplitKind | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        limit_train: int | None = None,
        check_images: bool = False,
        cache: bool = False,
        *,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        self.dataset, self.folder, self.archive, self.reader = dataset, folder, archive, reader
        self.reader_splits = {"train": "train"} if reader_splits is None else dict(reader_splits)
        self.predict, self.channels, self.interpolation = predict, channels, interpolation
        self.split, self.val_fraction, self.test_fraction = split, val_fraction, test_fraction
        self.limit_train, self.check_images, self.cache = limit_train, check_images, cache
        self._size, self._crop_pct = image_size(img_size), crop_pct
        self._check()
        self.mean = tuple(IMAGENET_MEAN if channels == 3 else (0.5,)) if mean is None else tuple(mean)
        self.std = tuple(IMAGENET_STD if channels == 3 else (0.5,)) if std is None else tuple(std)
        check_normalisation(self.mean, self.std, channels)
        self._whole: Images | None = None
        self._splits: dict[str, Images] | None = None

    def _check(self) -> None:
        given = [name for name in ("dataset", "folder", "archive", "reader") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} exclude each other; give one")
        if not given and self.predict is None:
            raise UserError("no data: give dataset, folder, archive, reader or predict")
        if self.dataset not in (None, "digits"):
            raise UserError(f"unknown dataset {self.dataset!r} ({nearest(str(self.dataset), ['digits'])})")
        if self.channels not in (1, 3):
            raise UserError(f"channels is {self.channels}; expected 3 (colour) or 1 (grey)")
        if self.split is not None and self.split not in get_args(SplitKind):
            raise UserError(f"split={self.split!r} is unknown ({nearest(self.split, get_args(SplitKind))})")
        for name in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError("val_fraction and test_fraction leave nothing to train on; lower them")
        if self.limit_train is not None and self.limit_train < 1:
            raise UserError(f"limit_train={self.limit_train} must be at least 1")
        if self._crop_pct is not None and not 0 < self._crop_pct <= 1:
            raise UserError(f"crop_pct={self._crop_pct} must lie in (0, 1]")
        for split in self.reader_splits:
            if split not in ("train", "val", "test"):
                raise UserError(f"reader_splits: {split!r} is no split; give train, val or test")
        check_interpolation(self.interpolation, random=False)

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width that images are brought to."""
        if self._size is not None:
            return self._size
        whole = self.whole()
        return (224, 224) if whole is None or whole.pixel_size is None else whole.pixel_size

    @property
    def crop_pct(self) -> float:
        """Side of the central crop over the side that images are resized to."""
        if self._crop_pct is not None:
            return self._crop_pct
        whole = self.whole()
        return 1.0 if whole is not None and whole.pixel_size == self.img_size else 0.875

    def __getstate__(self) -> dict[str, Any]:
        # Loader processes need only ``collate``; see the base class.
        return super().__getstate__() | {"_splits": None, "_whole": None}

    def whole(self) -> Images | None:
        """Return all images of the source, with given splits where it has some; None where there is only ``predict``.

        Raises:
            UserError: something is wrong with them.
        """
        if self._whole is None:
            self._whole = self.read_source()
        return self._whole

    def read_source(self) -> Images | None:
        """Read the list of images."""
        if self.dataset is not None:
            return read_digits()
        if self.folder is not None:
            return read_class_folders(self.folder)
        if self.reader is not None:
            return _read_splits(self.reader, self.reader_splits)
        if self.archive is None:
            return None
        path = Path(self.archive).expanduser()
        if path.suffix == ".npz":
            return read_npz(str(path))
        if path.suffix == ".tar":
            return read_timm("", str(path), "train")
        if not path.exists():
            raise UserError(f"{path}: no such archive; check the path")
        return read_cifar(path)

    def splits(self) -> dict[str, Images]:
        """Return the images of ``"train"``, ``"val"`` and ``"test"``, those that there are.

        Raises:
            UserError: something is wrong with them, or there are too few.
        """
        if self._splits is None:
            whole = self.whole()
            rows = {} if whole is None else self._split_rows(whole)
            self._splits = (
                {} if whole is None else {n: whole.select(chosen) for n, chosen in rows.items() if len(chosen)}
            )
            if whole is not None:
                counts = ", ".join(f"{len(part)} {name}" for name, part in self._splits.items())
                logger.info("%s: images: %s", whole.origin, counts)
        return self._splits

    def _split_rows(self, whole: Images) -> dict[str, np.ndarray]:
        kind = self.split or ("given" if whole.splits is not None else "random")
        if kind == "given" and whole.splits is None:
            raise UserError(f"{whole.origin}: gives no splits; use split 'random' or 'sorted'")
        if kind == "given":
            given = np.array(whole.splits)
        elif kind == "sorted":
            given = np.full(len(whole), "train", dtype=object)
            given[len(whole) - round(self.test_fraction * len(whole)) :] = "test"
        else:
            given = np.full(len(whole), "train", dtype=object)
            if self.test_fraction:
                given[self._held(whole, np.arange(len(whole)), self.test_fraction, self.seed + 1)] = "test"
        rows = {name: np.flatnonzero(given == name) for name in ("train", "val", "test")}
        if not len(rows["val"]) and len(rows["train"]) and self.val_fraction:
            held = self._held(whole, rows["train"], self.val_fraction, self.seed)
            rows["val"], rows["train"] = held, np.setdiff1d(rows["train"], held)
        if self.limit_train is not None:
            order = np.random.default_rng(self.seed).permutation(rows["train"])
            rows["train"] = np.sort(order[: self.limit_train])
        return rows

    def _held(self, whole: Images, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
        """``fraction`` of the rows, of every class where there are classes."""
        targets = np.zeros(len(rows), dtype=np.int64) if whole.labels is None else whole.labels[rows]
        chosen = chosen_rows(targets, fraction, seed)
        if not chosen.any() or chosen.all():
            raise UserError(
                f"{whole.origin}: {len(rows)} images are too few to hold out {fraction:g} of them; give more, or set "
                "val_fraction and test_fraction to 0"
            )
        return rows[chosen]

    def read_predict(self) -> Images:
        """Return the images to predict."""
        assert self.predict is not None
        if isinstance(self.predict, str) and Path(self.predict).expanduser().is_dir():
            return read_plain_folder(self.predict)
        files = [self.predict] if isinstance(self.predict, str) else list(self.predict)
        if not files:
            raise UserError("predict: the list is empty; name at least one file")
        return list_files(files)

    def checked(self, images: Images, name: str) -> Any:
        """Return the dataset of a split; with ``check_images`` every image has been decoded."""
        if self.check_images:
            images.check(self.channels)
        return self.make_dataset(images, name)

    def make_dataset(self, images: Images, name: str) -> Any:
        """Return the dataset of a split (``"train"``, ``"val"``, ``"test"`` or ``"predict"``)."""
        raise NotImplementedError(f"{type(self).__name__} must implement make_dataset(images, name)")


def list_files(files: Sequence[str | Path]) -> Images:
    """Return images of files, named as they are given.

    Raises:
        UserError: one is missing or empty.
    """
    return file_images(str(files[0]), [require_file(file) for file in files], [str(file) for file in files])


def _read_splits(reader: str, splits: dict[str, str]) -> Images:
    from .archives import joined

    parts = []
    for split, name in splits.items():
        found = read_timm(reader, None, name)
        given = np.full(len(found), split, dtype=object)
        names = np.array([f"{split}/{label}" for label in found.names], dtype=object)
        parts.append((found, given, names))
    whole = joined(
        reader,
        [
            Images(part.origin, names, part.store, part.rows, part.labels, part.class_names, given)
            for part, given, names in parts
        ],
        parts[0][0].class_names,
    )
    if len(splits) > 1:
        return whole
    return Images(whole.origin, whole.names, whole.store, whole.rows, whole.labels, whole.class_names)


def check_normalisation(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Check the mean and standard deviation of each channel.

    Raises:
        UserError: not one for each channel, or no deviation.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UserError(f"{name} has {len(values)} values for {channels} channels")
    if min(std) <= 0:
        raise UserError(f"std is {list(std)}; each must be above 0")


def image_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return height and width of an option that may be one number for both.

    Raises:
        UserError: it is neither.
    """
    if size is None:
        return None
    try:
        height, width = (size, size) if isinstance(size, int) else size
    except (TypeError, ValueError) as error:
        raise UserError(f"img_size is {size!r}; expected a number of pixels, or height and width") from error
    if min(height, width) < 1:
        raise UserError(f"img_size is {size!r}; expected at least 1 pixel")
    return height, width
