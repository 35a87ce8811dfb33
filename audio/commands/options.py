"""Options that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse


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
