"""Options that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse

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
