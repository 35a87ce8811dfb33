"""The commands that all domains share: listing models and converting checkpoints."""

from __future__ import annotations

from .cli import Parser
from .report import print_table


def models(argv: list[str]) -> int:
    """``longscan models``: list registered models."""
    parser = Parser(prog="longscan models", description="List the models that can be asked for by name.")
    parser.add_argument("pattern", nargs="?", default="*", help="shell-style wildcard, as in '*dna*'")
    parser.add_argument("--domain", help="only models of this domain")
    parser.add_argument("--pretrained", action="store_true", help="only models with known weights")
    parser.add_argument("--formats", action="store_true", help="list the checkpoint formats instead")
    arguments = parser.parse_args(argv)
    from .. import list_models
    from .errors import UserError
    from .pretrained import list_formats
    from .registry import find_model

    if arguments.formats:
        print_table(("format", "what it is"), list(list_formats().items()))
        return 0
    names = list_models(arguments.pattern, domain=arguments.domain, pretrained=arguments.pretrained or None)
    if not names:
        raise UserError(f"no model matches {arguments.pattern!r} (see `longscan models`)")
    rows = []
    for name in names:
        entry = find_model(name)
        assert entry is not None
        weights = "in the package" if entry.folder else entry.hub or "-"
        rows.append((entry.name, entry.domain, weights, entry.description))
    print_table(("model", "domain", "weights", "description"), rows)
    return 0


def convert(argv: list[str]) -> int:
    """``longscan convert SRC DST``: rewrite a checkpoint in another format."""
    parser = Parser(
        prog="longscan convert",
        description="Read a checkpoint in any known format and write it in longscan's own, or in another.",
    )
    parser.add_argument("source", help="a registered name, a folder, a file, or a hub repository")
    parser.add_argument("destination", help="the folder to write")
    parser.add_argument(
        "--to", default="longscan", metavar="FORMAT", help="format to write (`longscan models --formats`)"
    )
    parser.add_argument("--format", help="format of the source, where it is not recognised")
    parser.add_argument("--config", help="config.json of a source that has none beside it")
    parser.add_argument("--revision", help="branch, tag or commit of a hub repository")
    parser.add_argument("--head", choices=("language_model", "classification"), help="which head to keep")
    arguments = parser.parse_args(argv)
    from .. import from_pretrained
    from .pretrained import save_pretrained

    options = {"head": arguments.head} if arguments.head else {}
    model = from_pretrained(
        arguments.source,
        format=arguments.format,
        config=arguments.config,
        revision=arguments.revision,
        **options,
    )
    folder = save_pretrained(model, arguments.destination, format=arguments.to)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{type(model).__name__} with {count:,} parameters -> {folder} ({arguments.to})")
    return 0
