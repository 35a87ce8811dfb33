"""What the argument parser says of a wrong value, in one line."""

from __future__ import annotations

import re

from ..errors import nearest


def argument_message(message: str, known_classes: list[str]) -> str:
    """Return jsonargparse's ``message`` as a sentence about one argument.

    Args:
        known_classes: names of classes that a ``class_path`` may have meant.
    """
    key = re.search(r'Parser key "([^"]+)"', message)
    where = f"{key[1]}: " if key else ""
    unknown = re.search(r"(?:Expected a dot import path string:|Import of module) '?([\w.]+)'?", message)
    if unknown:
        return f"{where}no class is called {unknown[1]!r}; {nearest(unknown[1], known_classes)}"
    if "arguments are required" in message and ("model" in message or "data" in message):
        return f"{message}; a configuration gives them: --config NAME or --config PATH"
    value = re.search(r"^ *Given value: (.*)$", message, flags=re.MULTILINE)
    expected = re.findall(r"^ *- Expected an? (.*?)\.?$", message, flags=re.MULTILINE)
    problems = re.findall(r"^ *- (.*)$", message, flags=re.MULTILINE)
    if key and value and expected and len(expected) == len(problems):
        kinds = [re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", kind).replace("NoneType", "null") for kind in expected]
        return f"{where}expected {' or '.join(kinds)}, got {value[1]}"
    return " ".join(message.split())
