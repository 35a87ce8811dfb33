"""``longscan``: the command line. Nothing heavy is imported before a verb asks for it."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from . import DOMAINS, __version__
from .core.cli import Parser, Verb, guarded, run_verb
from .core.errors import UserError, nearest
from .core.report import Section, print_table, write_report

_DOMAIN_HELP = {
    "genomics": "DNA: pretrain, fine-tune, predict (HyenaDNA, Caduceus)",
    "audio": "waveforms: generate, classify, process (SaShiMi, S4)",
    "vision": "image models",
    "timeseries": "forecasting models",
}


def verbs() -> list[Verb]:
    """Return the commands: the common ones, and one for each domain that has a command line."""
    common = [
        Verb("demo", "train, evaluate and predict on real data in a few minutes", "longscan.__main__:demo"),
        Verb("models", "list models and checkpoint formats", "longscan.core.commands:models"),
        Verb(
            "bench", "measure the operators beside their peers on this machine", "longscan.core.benchmark.command:bench"
        ),
        Verb("convert", "rewrite a checkpoint in another format", "longscan.core.commands:convert"),
    ]
    domains = [
        Verb(domain, _DOMAIN_HELP[domain], f"longscan.{domain}.cli:main")
        for domain in DOMAINS
        if importlib.util.find_spec(f"longscan.{domain}.cli") is not None
    ]
    return [*domains, *common]


def demo(argv: Sequence[str]) -> int:
    """``longscan demo``: train, evaluate and predict in every domain that can, and write one report."""
    able = [domain for domain in DOMAINS if importlib.util.find_spec(f"longscan.{domain}.demo") is not None]
    parser = Parser(
        prog="longscan demo",
        description="Train, evaluate and predict on real data from the package, and write a report with pictures.",
    )
    parser.add_argument("domains", nargs="*", metavar="domain", help=f"which to show: {', '.join(able)} (default: all)")
    parser.add_argument("--output", help="folder to write to (default: longscan-demo, or -2, -3, … if that exists)")
    arguments = parser.parse_args(argv)
    for domain in arguments.domains:
        if domain not in able:
            raise UserError(f"there is no demo of {domain!r}; {nearest(domain, able)}")
    output = Path(arguments.output or "longscan-demo")
    if not arguments.output:
        numbered = (Path(f"longscan-demo-{number}") for number in itertools.count(2))
        output = output if not output.exists() else next(path for path in numbered if not path.exists())
    sections: list[Section] = []
    for domain in arguments.domains or able:
        sections += importlib.import_module(f"longscan.{domain}.demo").run(output / domain)
    for section in sections:
        print(f"\n{section.title}")
        if section.rows:
            print_table(section.header, section.rows)
        for command in section.commands:
            print(f"  {command}")
    report = write_report(output / "report.html", "longscan demo", sections)
    print(f"\nreport with pictures: {report}")
    return 0


def _run(argv: Sequence[str]) -> int:
    if argv and argv[0] in ("-V", "--version"):
        print(f"longscan {__version__}")
        return 0
    return run_verb("longscan", "Long-sequence models for DNA, audio, images and time series.", verbs(), argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return guarded(_run, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
