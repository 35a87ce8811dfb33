"""Options that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ...core.errors import UserError


def add_model_arguments(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    """Add the options of a model; `longscan.audio.loading.load_model` reads them. Without ``device`` it is the CPU."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", required=True, help="registered name, folder, checkpoint file or hub repository")
    group.add_argument("--revision", help="branch, tag or commit of a hub repository")
    group.add_argument("--sample-rate", type=int, help="in hertz, of a model whose files do not tell it")
    if device:
        group.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    else:
        parser.set_defaults(device="cpu")
    group.add_argument("--threads", type=int, help="CPU threads [as many as there are cores]")


def add_format_arguments(parser: argparse.ArgumentParser, *, resample: bool = True) -> None:
    """Add the options by which files of another format are converted."""
    group = parser.add_argument_group("files")
    if resample:
        group.add_argument("--resample", action="store_true", help="resample files of another rate, filtered")
    else:
        parser.set_defaults(resample=False)
    group.add_argument("--mixdown", action="store_true", help="average the channels of files that have several")


def add_seed_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup, help: str) -> None:
    """Add ``--seed``, a whole number from 0 to 2³² − 1."""
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


def write_table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Write tab-separated values, whole or not at all.

    Raises:
        UserError: a tab or a line break in a cell, or a disk that is full.
    """
    from ...core.files import replacing

    for row in rows:
        bad = next((cell for cell in row if "\t" in cell or "\n" in cell), None)
        if bad is not None:
            raise UserError(f"a tab or line break in {bad!r} cannot be written to {path}; rename the file")
    try:
        with replacing(path) as temporary:
            temporary.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot write it ({reason}); free some space or choose another folder") from error


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)
