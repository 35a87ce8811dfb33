"""Lists of images: where each is, what it is called, and its class and split where these are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...core.errors import UserError
from .decoding import convert_image, decode_image


class ImageStore(Protocol):
    """Where images are kept."""

    def read(self, row: int, where: str, channels: int) -> Any:
        """Return one image, ``PIL.Image.Image`` in grey (1 channel) or RGB (3); errors name ``where``."""
        ...


@dataclass(frozen=True)
class Files:
    """Images as files."""

    paths: list[Path]

    def read(self, row: int, where: str, channels: int) -> Any:
        """See `ImageStore`."""
        return decode_image(self.paths[row], where, channels)


@dataclass(frozen=True)
class EncodedBytes:
    """Encoded images (JPEG, PNG, …) one after the other: ``data`` uint8 (bytes,), ``offsets`` int64 (images + 1,)."""

    data: np.ndarray
    offsets: np.ndarray

    def read(self, row: int, where: str, channels: int) -> Any:
        """See `ImageStore`."""
        return decode_image(self.data[self.offsets[row] : self.offsets[row + 1]].tobytes(), where, channels)


@dataclass(frozen=True)
class Pixels:
    """Decoded images, uint8 (images, height, width) or (images, height, width, channels)."""

    values: np.ndarray

    def read(self, row: int, where: str, channels: int) -> Any:
        """See `ImageStore`."""
        from PIL import Image

        value = self.values[row]
        return convert_image(Image.fromarray(value[..., 0] if value.shape[2:] == (1,) else value), where, channels)

    def pixels(self, rows: np.ndarray, channels: int) -> np.ndarray | None:
        """Return images as uint8 (rows, height, width, channels); None where they have other channels."""
        values = self.values[rows] if self.values.ndim == 4 else self.values[rows][..., None]
        return values if values.shape[-1] == channels else None


@dataclass(frozen=True)
class Images:
    """A list of images.

    Args:
        origin: where it comes from, for messages.
        names: of the images, str (images,).
        store: where they are kept.
        rows: of each image in the store, int64 (images,).
        labels: index of each one's class, int64 (images,).
        class_names: of the classes.
        splits: ``"train"``, ``"val"`` or ``"test"`` of each, where the origin says so.
    """

    origin: str
    names: np.ndarray
    store: ImageStore
    rows: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    splits: np.ndarray | None = None
    pixel_size: tuple[int, int] | None = None
    """Height and width, where the origin fixes them for all."""

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """Return how messages name an image."""
        if isinstance(self.store, Files):
            return str(self.store.paths[int(self.rows[index])])
        return f"{self.origin}: image {self.names[index]}"

    def read(self, index: int, channels: int = 3) -> Any:
        """Return an image, ``PIL.Image.Image`` in grey (1 channel) or RGB (3).

        Raises:
            UserError: it cannot be decoded; names it.
        """
        return self.store.read(int(self.rows[index]), self.where(index), channels)

    def pixels(self, channels: int = 3) -> np.ndarray | None:
        """Return all images as uint8 (images, height, width, channels) where they are kept so; None elsewhere."""
        direct = getattr(self.store, "pixels", None)
        found: np.ndarray | None = None if direct is None else direct(self.rows, channels)
        return found

    def select(self, rows: np.ndarray) -> Images:
        """Return some of the images."""
        chosen: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in ("names", "rows", "labels", "splits")
        }
        return replace(self, **chosen)

    def check(self, channels: int = 3) -> None:
        """Decode every image.

        Raises:
            UserError: one cannot be; names the first, and says how many others there are.
        """
        from tqdm import tqdm

        broken: list[UserError] = []
        for index in tqdm(range(len(self)), desc="checking images", unit="image", disable=None):
            try:
                self.read(index, channels)
            except UserError as error:
                broken.append(error)
        if broken:
            more = f" (and {len(broken) - 1} more like it)" if len(broken) > 1 else ""
            raise UserError(f"{broken[0]}{more}") from broken[0]


def file_images(origin: str, paths: list[Path], names: list[str] | None = None, **options: Any) -> Images:
    """Return images of files, in order; ``options`` are further fields.

    Raises:
        UserError: an empty file, or a link to nothing.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: is a link to a file that there is not; mend or remove it")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty; copy it again or remove it")
    names = [str(path) for path in paths] if names is None else names
    return Images(origin, np.array(names, dtype=object), Files(paths), np.arange(len(paths)), **options)
