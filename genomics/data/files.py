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

GZIP_MAGIC = b"\x1f\x8b"


def require_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file that exists and can be read, absolute, ``~`` expanded; symbolic links stay.

    Raises:
        UserError: nothing there, a folder, no permission, or an empty file.
    """
    file = Path(os.path.abspath(Path(path).expanduser()))
    if file.is_dir():
        raise UserError(f"{file}: is a folder; name a file in it")
    if not file.exists():
        raise UserError(f"{file}: no such file; check the path")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file}: no permission to read it; change its mode or copy it")
    if file.stat().st_size == 0:
        raise UserError(f"{file}: the file is empty; copy or download it again")
    return file


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
