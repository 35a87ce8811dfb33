"""A report that people look at: one HTML page with tables, pictures and commands."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .files import replacing

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .3rem .9rem; border-bottom: 1px solid #ddd; }
th { text-align: left; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; } img { max-width: 100%; } figure { margin: 1rem 0; }
figcaption { color: #666; font-size: .9rem; }
"""


@dataclass
class Section:
    """One part of a report."""

    title: str
    text: list[str] = field(default_factory=list)
    """Paragraphs, plain text."""
    header: Sequence[str] = ()
    """Column names of the table."""
    rows: list[Sequence[str]] = field(default_factory=list)
    """Rows of the table."""
    pictures: list[tuple[Path, str]] = field(default_factory=list)
    """Image files with captions."""
    commands: list[str] = field(default_factory=list)
    """Shell commands to go on with."""


def write_report(path: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write the page; pictures are referred to relative to it, so the folder can be moved as a whole."""
    path = Path(path)
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [f"<p>{html.escape(text)}</p>" for text in section.text]
        if section.rows:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in section.header)
            body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in section.rows)
            parts.append(f"<table><tr>{head}</tr>{body}</table>")
        for picture, caption in section.pictures:
            source = html.escape(os.path.relpath(picture, path.parent))
            parts.append(f'<figure><img src="{source}"><figcaption>{html.escape(caption)}</figcaption></figure>')
        if section.commands:
            parts.append("<pre>" + html.escape("\n".join(section.commands)) + "</pre>")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(page)
    return path


def _cell(text: str) -> str:
    number = text.replace(".", "").replace(",", "").replace("-", "").replace("%", "").strip().isdigit()
    return f'<td class="number">{html.escape(text)}</td>' if number else f"<td>{html.escape(text)}</td>"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
