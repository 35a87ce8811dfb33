"""Folders of images: a folder for each class, with or without folders of splits above them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from .decoding import IMAGE_ENDINGS
from .images import Images, file_images

#: Names of split folders, and the split that each is.
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def image_files(folder: Path) -> list[Path]:
    """Return all image files below a folder, sorted; hidden ones are left out."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(place, name)
            for name in names
            if Path(name).suffix.lower() in IMAGE_ENDINGS and not name.startswith(".")
        ]
    return sorted(found)


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); change its mode or remove it") from error


def require_folder(folder: str | Path) -> Path:
    """Return a folder that there is, absolute.

    Raises:
        UserError: there is none.
    """
    path = Path(os.path.abspath(Path(folder).expanduser()))
    if not path.exists():
        raise UserError(f"{path}: no such folder; check the path")
    if not path.is_dir():
        raise UserError(f"{path}: is a file; name the folder that it is in")
    return path


def read_class_folders(folder: str | Path) -> Images:
    """Return the images of ``CLASS/…`` or ``train/CLASS/…``, ``val/CLASS/…`` and ``test/CLASS/…``, by path.

    Classes are the sorted names of their folders (of those of ``train`` where there are splits).

    Raises:
        UserError: no folder, no classes, a class without images, or one that is not in training.
    """
    root = require_folder(folder)
    splits = split_folders(root)
    if not splits:
        names = class_folders(root)
        paths, labels = _class_files(root, names)
        return _with_names(root, paths, labels, names, None)
    trained = splits.get("train")
    names = class_folders(trained if trained is not None else next(iter(splits.values())))
    paths, labels, given = [], [], []
    for split, place in splits.items():
        for other in class_folders(place):
            if other not in names:
                raise UserError(
                    f"{place / other}: a class that {root} has no training images of; add some or remove it"
                )
        own = [name for name in names if (place / name).is_dir()]
        found, indices = _class_files(place, own)
        paths += found
        labels += [names.index(own[index]) for index in indices]
        given += [split] * len(found)
    return _with_names(root, paths, labels, names, given)


def read_plain_folder(folder: str | Path) -> Images:
    """Return all images below a folder, by path, named relative to it.

    Raises:
        UserError: no folder, or none with images.
    """
    root = require_folder(folder)
    paths = image_files(root)
    if not paths:
        raise UserError(f"{root}: has no images ({', '.join(IMAGE_ENDINGS[:4])}, …); name another folder")
    return file_images(str(root), paths, [path.relative_to(root).as_posix() for path in paths])


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of splits in ``root`` by split; empty where it has none.

    Raises:
        UserError: two folders of one split, or images in a folder beside them.
    """
    found: dict[str, Path] = {}
    for place in sorted(root.iterdir()):
        split = SPLIT_FOLDERS.get(place.name.lower())
        if split is None or not place.is_dir():
            continue
        if split in found:
            raise UserError(f"{root}: {found[split].name} and {place.name} are both {split} images; remove one")
        found[split] = place
    if found:
        for place in sorted(root.iterdir()):
            if place.is_dir() and place not in found.values() and not place.name.startswith(".") and image_files(place):
                other = next(iter(found.values())).name
                raise UserError(
                    f"{place}: has images, but {other} beside it is taken for a split, and only folders of splits are "
                    "read then; move or rename one of them"
                )
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders of classes, sorted.

    Raises:
        UserError: there are none, or images beside them, which would have no class.
    """
    entries = sorted(place for place in root.iterdir() if not place.name.startswith("."))
    names = [place.name for place in entries if place.is_dir()]
    if not names:
        raise UserError(f"{root}: has no class folders; put the images of each class in a folder of its name")
    stray = next((place for place in entries if place.suffix.lower() in IMAGE_ENDINGS and not place.is_dir()), None)
    if stray is not None:
        raise UserError(f"{stray}: is in no class folder; move it into one, or elsewhere")
    return names


def _class_files(root: Path, names: list[str]) -> tuple[list[Path], list[int]]:
    paths: list[Path] = []
    labels: list[int] = []
    for index, name in enumerate(names):
        found = image_files(root / name)
        if not found:
            raise UserError(f"{root / name}: the class folder has no images; add some or remove the folder")
        paths += found
        labels += [index] * len(found)
    return paths, labels


def _with_names(
    root: Path, paths: list[Path], labels: list[int], classes: list[str], splits: list[str] | None
) -> Images:
    return file_images(
        str(root),
        paths,
        [path.relative_to(root).as_posix() for path in paths],
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(classes),
        splits=None if splits is None else np.array(splits, dtype=object),
    )
