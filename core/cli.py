"""The shape of every command line here: verbs that import their work when called, and errors of one line."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from .errors import UserError, nearest


@dataclass(frozen=True)
class Verb:
    """A command: what help says of it, and where its function is."""

    name: str
    help: str
    target: str
    """``"package.module:function"``, imported when the verb is used; called with the remaining arguments."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are the project's: one line on standard error, exit status 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong as a user's error."""
        raise UserError(f"{message} (see `{self.prog} --help`)")


def run_verb(prog: str, description: str, verbs: Sequence[Verb], argv: Sequence[str]) -> int:
    """Run the verb that ``argv`` begins with; without one, or with ``--help``, print what there is.

    Raises:
        UserError: for an unknown verb, naming the nearest.
    """
    if not argv or argv[0] in ("-h", "--help"):
        width = max(len(verb.name) for verb in verbs) + 2
        lines = [f"usage: {prog} <command> [options]", "", description, "", "commands:"]
        lines += [f"  {verb.name:<{width}}{verb.help}" for verb in verbs]
        print("\n".join([*lines, "", f"`{prog} <command> --help` explains each."]))
        return 0
    for verb in verbs:
        if verb.name == argv[0]:
            module, function = verb.target.split(":")
            return getattr(importlib.import_module(module), function)(list(argv[1:])) or 0
    raise UserError(f"{prog}: command {argv[0]!r} is unknown; {nearest(argv[0], [verb.name for verb in verbs])}")


def guarded(run: Any, argv: Sequence[str]) -> int:
    """Call ``run(argv)`` and turn what a user can cause into one line on standard error and an exit status."""
    try:
        return run(argv)
    except UserError as error:
        message = " ".join(str(error).split())
        print(f"longscan: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("longscan: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe (`| head`) has gone; nothing is wrong
        return 141
