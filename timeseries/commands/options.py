"""Options that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError

_POLICIES = {
    "duplicates": (("error", "first", "last", "mean"), "rows of one series and stamp"),
    "irregular": (("error", "resample"), "stamps off the grid"),
    "gaps": (("error", "fill", "mask"), "steps without a row"),
    "missing": (("mask", "fill", "error"), "empty cells"),
}


def add_data_arguments(parser: argparse.ArgumentParser, *, help: str = "CSV, TSV, Parquet, .tsf or M4 file") -> None:
    """Add the options of a table of series; `longscan.timeseries.commands.inputs.read_data` reads them."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", required=True, metavar="FILE", help=help)
    group.add_argument("--layout", choices=("long", "wide", "m4", "tsf"), help="of the table [found by its columns]")
    group.add_argument("--frequency", help="step between stamps, such as h, 15min, D, MS, or a number [inferred]")
    group.add_argument("--season", type=_positive, metavar="N", help="steps per season [that of the frequency]")
    group.add_argument("--id-column", help="name of the series in a long table [unique_id]")
    group.add_argument("--time-column", help="stamps [ds in a long table, date in a wide one]")
    group.add_argument("--target-column", help="values of a long table [y]")
    group.add_argument("--channels", type=_names, metavar="NAMES", help="columns of values of a wide table [all]")
    group.add_argument("--historic", type=_names, metavar="NAMES", help="covariates known until now")
    group.add_argument("--future", type=_names, metavar="NAMES", help="covariates known in advance")
    group.add_argument("--static", type=_names, metavar="NAMES", help="columns that are the same all along a series")
    group.add_argument("--date-format", help="of dates that are not ISO 8601, such as %%d.%%m.%%Y")
    for name, (choices, what) in _POLICIES.items():
        group.add_argument(f"--{name}", choices=choices, default=choices[0], help=f"{what} [%(default)s]")
    group.add_argument(
        "--short-series", choices=("error", "drop"), default="error", help="series that are too short [%(default)s]"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where models compute."""
    group = parser.add_argument_group("computation")
    group.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    group.add_argument("--threads", type=_positive, help="CPU threads [as many as there are cores]")
    group.add_argument("--batch-size", type=_positive, default=256, help="windows at a time [%(default)s]")
    group.add_argument("--train-steps", type=_positive, default=300, metavar="N",
                       help="optimiser steps of a model that is named and so trained here [%(default)s]")  # fmt: skip
    group.add_argument("--seed", type=_seed, default=0, help="of models that are trained here [%(default)s]")


def add_level_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--level``, the shares of central intervals in percent."""
    parser.add_argument(
        "--level", type=_levels, default=_levels(default), metavar="PERCENT",
        help=f"central intervals, separated by commas [{default}]",
    )  # fmt: skip


def check_output(path: str | os.PathLike[str], option: str = "--output") -> Path:
    """The path of a file that a command writes at its end, checked at its beginning.

    Raises:
        UserError: a folder, or a place where no file can be made.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file in it")
    return check_place(file, option)


def check_folder(path: str | os.PathLike[str], option: str = "--output") -> Path:
    """The path of a folder that a command fills at its end, checked at its beginning.

    Raises:
        UserError: a file, or a place where no folder can be made.
    """
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{option} {path}: is a file; name a folder")
    return check_place(folder, option)


def check_place(path: Path, option: str) -> Path:
    """Check that something can be made at ``path``, which need not exist, and return it.

    Raises:
        UserError: it cannot.
    """
    here = [path] if path.is_dir() else []
    above = next(folder for folder in [*here, *path.absolute().parents] if folder.exists())
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is no folder; write elsewhere")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: no permission to write in {above}; write elsewhere")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        UserError: a disk that is full.
    """
    from ...core.files import replacing

    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot write it ({reason}); free some space or choose another folder") from error


def write_frame(path: Path, frame: Any) -> None:
    """Write a pandas table as CSV, whole or not at all; numbers with ten significant digits."""
    write_text(path, frame.to_csv(index=False, float_format="%.10g"))


def numbers_argument(text: str) -> tuple[int, ...]:
    """Parse whole numbers above 0, separated by commas."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different whole numbers such as 96,192")
    return found


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    return _positive(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different names, separated by commas")
    return names


def _levels(text: str) -> Sequence[float]:
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = (0.0,)
    if any(not 0 < value < 100 for value in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of percentages between 0 and 100, such as 80,95")
    return tuple(dict.fromkeys(found))
