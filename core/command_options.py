"""What the commands of several domains share: seeds, places to write to, tables. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError


def add_seed_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup, help: str) -> None:
    """Add ``--seed``, a whole number from 0 to 2³² − 1, which every generator takes."""
    parser.add_argument("--seed", type=_seed, default=0, help=f"{help} [%(default)s]")


def check_output(path: str | os.PathLike[str], option: str = "--output") -> Path:
    """The path of a file that a command writes at its end, checked at its beginning.

    Raises:
        UserError: a folder, or a place where no file can be made.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file in it")
    check_place(file, option)
    return file


def check_place(path: Path, option: str = "--output") -> None:
    """Check that files can be made at ``path``, which need not exist.

    Raises:
        UserError: they cannot.
    """
    here = [path] if path.is_dir() else []
    above = next(folder for folder in [*here, *path.absolute().parents] if folder.exists())
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is no folder; write elsewhere")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: no permission to write in {above}; write elsewhere")


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write tab-separated values, whole or not at all, in UTF-8; of names of files that are not, the bytes as they are.

    Raises:
        UserError: a tab or a line break in a cell, or a disk that is full.
    """
    from .files import replacing

    for row in (header, *rows):
        bad = next((cell for cell in row if any(mark in cell for mark in "\t\n\r")), None)
        if bad is not None:
            raise UserError(f"a tab or line break in {bad!r} cannot be written to {path}; rename the file")
    text = "".join("\t".join(row) + "\n" for row in [header, *rows])
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot write it ({reason}); free some space or choose another folder") from error


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)
