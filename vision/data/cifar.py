"""CIFAR's Python batches, read without running what a pickle could hold."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from .archives import archive_part, joined
from .images import Images, Pixels

#: All that the published batches need: arrays, and nothing that could run.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
_CIFAR10 = {**{f"data_batch_{number}": "train" for number in range(1, 6)}, "test_batch": "test"}
_CIFAR100 = {"train": "train", "test": "test"}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"refused {module}.{name}")
        return super().find_class(module, name)


def read_batches(path: Path) -> Images:
    """Return the images of a folder of batches, or of the ``.tar.gz`` of one.

    Raises:
        UserError: a batch is missing or damaged, or holds code.
    """
    files = dict(_files(path))
    wanted = _CIFAR10 if "data_batch_1" in files else _CIFAR100
    missing = [name for name in wanted if name not in files]
    if missing:
        raise UserError(f"{path}: has no {missing[0]}; give the folder of CIFAR's Python version, or its .tar.gz")
    meta = _load(f"{path}: {'batches.meta' if wanted is _CIFAR10 else 'meta'}", _meta(files, path))
    key = b"label_names" if wanted is _CIFAR10 else b"fine_label_names"
    parts = []
    for split in ("train", "test"):
        batches = [_load(f"{path}: {name}", files[name]) for name, where in wanted.items() if where == split]
        try:
            values = np.concatenate([np.asarray(batch[b"data"], dtype=np.uint8) for batch in batches])
            labels = [
                label for batch in batches for label in batch[b"labels" if wanted is _CIFAR10 else b"fine_labels"]
            ]
            pixels = np.ascontiguousarray(values.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path}: a {split} batch is not CIFAR's ({error}); download it again") from error
        parts.append(
            archive_part(path, split, Pixels(pixels), len(pixels), np.array(labels), f"{split} labels", (32, 32))
        )
    return joined(str(path), parts, tuple(name.decode() for name in meta[key]))


def _meta(files: dict[str, bytes], path: Path) -> bytes:
    found = files.get("batches.meta", files.get("meta"))
    if found is None:
        raise UserError(f"{path}: has no batches.meta with the names of the classes; download it again")
    return found


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    names = {*_CIFAR10, *_CIFAR100, "batches.meta", "meta"}
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.name in names and file.is_file():
                yield file.name, file.read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in names:
                    stream = archive.extractfile(member)
                    assert stream is not None  # it is a file
                    yield name, stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); download it again") from error


def _load(where: str, data: bytes) -> dict[bytes, Any]:
    try:
        found = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        if str(error).startswith("refused "):
            name = str(error).removeprefix("refused ")
            raise UserError(f"{where}: holds pickled code ({name}), refused; take the original file") from error
        raise UserError(f"{where}: is damaged ({error}); download it again") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(f"{where}: is damaged ({type(error).__name__}); download it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{where}: is not one of CIFAR's batches; download it again")
    return found
