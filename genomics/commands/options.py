"""Options that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ...core.errors import UserError


def add_model_arguments(parser: argparse.ArgumentParser, *, batch_size: int = 16, required: bool = True) -> None:
    """Add the options of a model; `longscan.genomics.inference.load_model` reads them."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", required=required, help="registered name, folder, checkpoint file or hub repository")
    group.add_argument("--revision", help="branch, tag or commit of a hub repository")
    group.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    group.add_argument("--precision", choices=("32", "bf16"), default="32", help="bf16 halves time and memory on a GPU")
    group.add_argument("--batch-size", type=int, default=batch_size, help="windows per forward pass [%(default)s]")


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of windows and scores, of ``score-variants`` and ``mutate``."""
    group = parser.add_argument_group("score")
    group.add_argument(
        "--window", type=int, default=1024, help="bases around a variant, POS in the middle [%(default)s]"
    )
    group.add_argument(
        "--strand", choices=("forward", "reverse", "both"), default="both", help="both is their mean [%(default)s]"
    )
    group.add_argument(
        "--unmasked", action="store_true",
        help="let a masked language model see REF: for models pretrained on relatives",
    )  # fmt: skip
    group.add_argument("--max-n", type=float, default=0.5, help="skip windows with a larger share of N [%(default)s]")
    group.add_argument(
        "--embedding-distance", choices=("none", "cosine", "l2", "both"), default="none",
        help="also compare mean features of both windows",
    )  # fmt: skip
    group.add_argument(
        "--embedding-window", type=int, default=1536, help="bases whose features are averaged [%(default)s]"
    )


def add_seed_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup, help: str) -> None:
    """Add ``--seed``, a whole number from 0 to 2³² − 1, which every generator takes."""
    parser.add_argument("--seed", type=_seed, default=0, help=f"{help} [%(default)s]")


def check_output(path: str | os.PathLike[str], option: str = "--output") -> Path:
    """The path of a file that a command writes at its end, checked at its beginning.

    Raises:
        UserError: a folder, or a place where no file can be made.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file in it")
    above = next(folder for folder in file.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is no folder; write elsewhere")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: no permission to write in {above}; write elsewhere")
    return file


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)
