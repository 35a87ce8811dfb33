"""The words of a command line that are dealt with before the rest is parsed."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .run_files import find_config


def find_configs(argv: list[str], domain: str) -> tuple[list[str], list[str]]:
    """Return ``argv`` with every configuration as a path, and the names of the configurations."""
    result: list[str] = []
    names: list[str] = []
    words = iter(argv)
    for word in words:
        option, equals, value = word.partition("=")
        if option in ("--config", "-c"):
            if not equals:
                value = next(words, "")
            if not value:
                raise UserError("--config needs a value")
            name, path = find_config(value, domain)
            names.append(name)
            result += ["--config", str(path)]
        else:
            result.append(word)
    return result, names


def take_option(argv: list[str], name: str) -> str | None:
    """Remove the option ``name`` from ``argv`` and return its value, None where it is not given."""
    value = None
    index = 0
    while index < len(argv):
        if argv[index].startswith(f"{name}="):
            value = argv.pop(index)[len(name) + 1 :]
        elif argv[index] == name:
            if index + 1 == len(argv):
                raise UserError(f"{name} needs a value")
            value = argv[index + 1]
            del argv[index : index + 2]
        else:
            index += 1
    return value


def take_path(argv: list[str], name: str) -> Path | None:
    """Remove the option ``name`` from ``argv`` and return its value as a path, None where it is not given."""
    value = take_option(argv, name)
    return None if value is None else Path(value)
