"""What the argument parser says of a wrong value, in one line."""

from __future__ import annotations

import re

from ..errors import nearest

# Lines of jsonargparse that lead to the problem, or tell of the alternative of giving nothing.
_SCAFFOLD = re.compile(
    r"^(- )?(Parser key|Problem with given class_path|Does not validate against|Subtypes:|Errors:|Given value"
    r"|Expected an? <class 'NoneType'>)"
)


def argument_message(message: str, known_classes: list[str]) -> str:
    """Return jsonargparse's ``message``, several nested lines, as a sentence about one argument.

    Args:
        known_classes: names of classes that a ``class_path`` may have meant.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    keys = re.findall(r'Parser key "([^"]+)"', message)
    where = f"{'.'.join(keys)}: " if keys else ""
    unknown = re.search(r"Expected a dot import path string: ([\w.]+)", message)
    if unknown and unknown[1] == "None":
        whole, _, part = ".".join(keys).rpartition(".")
        return f"{where}null cannot be given to it alone; give the group, as in --{whole} '{{{part}: null}}'"
    if unknown:
        return f"{where}no class is called {unknown[1]!r}; {nearest(unknown[1], dict.fromkeys(known_classes))}"
    if "arguments are required" in message and ("model" in message or "data" in message):
        return f"{lines[0]}; a configuration gives them: --config NAME or --config PATH"
    problems = [line.removeprefix("- ") for line in lines if not _SCAFFOLD.match(line)]
    value = re.search(r"^ *Given value: (.*)$", message, flags=re.MULTILINE)
    if not problems:
        return " ".join(lines)
    text = "; ".join(dict.fromkeys(problems))
    text = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", text).replace("typing.Literal", "one of ")
    text = re.sub(r"Expected an? (.*?)\. Got value: (.*)", r"expected \1, got \2", text)
    if text.startswith("Expected") and value:
        text = f"{re.sub('^Expected an? ', 'expected ', text)}, got {value[1]}"
    return where + text
