"""Opening input files, plain or gzip, so that everything wrong with one is a single clear error."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from ...core.errors import UserError, nearest
from ...core.files import require_file

__all__ = ["GZIP_MAGIC", "cache_folder", "is_gzip", "known_names", "open_binary", "open_text", "require_file"]

GZIP_MAGIC = b"\x1f\x8b"


def is_gzip(path: Path) -> bool:
    """Whether the file begins as gzip does (bgzip included), whatever its name."""
    with path.open("rb") as stream:
        return stream.read(2) == GZIP_MAGIC


@contextlib.contextmanager
def open_binary(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Read the bytes of a file, decompressed where it is gzip; errors while reading name the file.

    Raises:
        UserError: what `require_file` raises, or a truncated or corrupt gzip file.
    """
    file = require_file(path)
    compressed = is_gzip(file)
    try:
        if compressed:
            with gzip.open(file, "rb") as stream:
                yield cast(BinaryIO, stream)
        else:
            with file.open("rb") as raw:
                yield raw
    except EOFError as error:
        raise UserError(f"{file}: the gzip file is truncated; copy or download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{file}: the gzip file is corrupt ({error}); copy or download it again") from error


@contextlib.contextmanager
def open_text(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Read a file as UTF-8 text, line ends untouched; otherwise as `open_binary`.

    Raises:
        UserError: what `open_binary` raises, or bytes that are not UTF-8.
    """
    with open_binary(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            yield text
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not UTF-8 text ({error.reason}); is it the right file?") from error


def cache_folder(kind: str) -> Path:
    """The folder for derived files, made if need be: ``$LONGSCAN_CACHE/<kind>`` or ``~/.cache/longscan/<kind>``.

    Raises:
        UserError: it cannot be made or written to.
    """
    root = os.environ.get("LONGSCAN_CACHE")
    folder = (Path(root).expanduser() if root else Path.home() / ".cache" / "longscan") / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make this cache folder ({error.strerror}); set LONGSCAN_CACHE") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: no permission to write to this cache folder; set LONGSCAN_CACHE to another")
    return folder


def known_names(name: str, names: Collection[str]) -> str:
    """A phrase for errors: the names most like ``name``, or the first few of all where none is like it."""
    hint = nearest(name, names)
    if len(names) > 8 and hint.startswith("known"):
        return f"known: {', '.join(list(names)[:8])} and {len(names) - 8} more"
    return hint
