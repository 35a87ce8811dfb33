"""Options that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UserError


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a model; `longscan.vision.loading.load_model` reads them."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", required=True, help="registered name, folder, checkpoint file or hub repository")
    group.add_argument("--revision", help="branch, tag or commit of a hub repository")
    group.add_argument(
        "--img-size", metavar="PIXELS", help="read images at another size than in training: 384, 224x320"
    )
    group.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    group.add_argument("--threads", type=int, help="CPU threads [as many as there are cores]")


def check_batch_size(arguments: argparse.Namespace) -> None:
    """Check ``--batch-size``.

    Raises:
        UserError: below 1.
    """
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: must be at least 1")


def check_output(path: str | os.PathLike[str], option: str = "--output") -> Path:
    """The path of a file that a command writes at its end, checked at its beginning.

    Raises:
        UserError: a folder, or a place where no file can be made.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file in it")
    above = next(folder for folder in file.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is no folder; write elsewhere")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: no permission to write in {above}; write elsewhere")
    return file


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write tab-separated values, whole or not at all.

    Raises:
        UserError: a tab or a line break in a cell, or a disk that is full.
    """
    from ...core.files import replacing

    for row in (header, *rows):
        bad = next((cell for cell in row if "\t" in cell or "\n" in cell), None)
        if bad is not None:
            raise UserError(f"a tab or line break in {bad!r} cannot be written to {path}; rename the file")
    try:
        with replacing(path) as temporary:
            temporary.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot write it ({reason}); free some space or choose another folder") from error
