"""``longscan genomics check-rc``: how far a model is from treating both strands alike."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.cli import Parser
from ...core.errors import UserError
from .options import add_model_arguments, add_seed_argument, check_output

if TYPE_CHECKING:
    from ..inference import DNAModel
    from ..strand_symmetry import Asymmetry

_DESCRIPTION = """\
Compare what a model says of windows of a genome and of their reverse complements, and print the differences.

Of a masked language model the logits at each position are compared, of a causal one the log-likelihood of the window
(its logits at a position have seen other bases on each strand), of a classifier the logits of the classes. Relative
differences are over the largest absolute value. A model that is equivariant by construction (Caduceus-PS) has about
1e-6 in float32.
"""


def check_rc(argv: list[str]) -> int:
    """``longscan genomics check-rc``: 0, or 1 where the relative difference is above ``--tolerance``."""
    arguments = _parser().parse_args(argv)
    from ...core.report import print_table
    from ..data.fasta import open_fasta
    from ..data.items import SequenceReader
    from ..inference import load_model
    from ..strand_symmetry import draw_windows, measure

    if arguments.tolerance is not None and not arguments.tolerance >= 0:
        raise UserError(f"--tolerance {arguments.tolerance:g}: must be at least 0")
    if arguments.json is not None:
        check_output(arguments.json, "--json")
    fasta = open_fasta(arguments.fasta)
    model = load_model(arguments)
    reader = SequenceReader(fasta, model.tokenizer, arguments.keep_case)
    windows = draw_windows(reader, arguments.window, arguments.windows, arguments.seed)
    results = measure(model, windows, arguments.batch_size)
    rows = [(r.quantity, f"{r.maximum:.3g}", f"{r.mean:.3g}", f"{r.scale:.3g}", f"{r.relative:.3g}") for r in results]
    print(f"{model.name} (revision {model.revision}), {len(windows)} windows of {windows.shape[1]} bases")
    print_table(("quantity", "max difference", "mean difference", "max value", "relative"), rows)
    print(_advice(model, results))
    if arguments.json is not None:
        _write_json(arguments, model, results)
    answer = next(result for result in results if result.checked)
    if arguments.tolerance is not None and not answer.relative <= arguments.tolerance:
        print(f"{answer.quantity}: relative difference {answer.relative:.3g} is above {arguments.tolerance:g}")
        return 1
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan genomics check-rc", description=_DESCRIPTION)
    add_model_arguments(parser)
    parser.add_argument("--fasta", required=True, help="FASTA (plain, bgzip, gzip), or embedded:yeast1, …")
    parser.add_argument("--window", type=int, default=1024, help="bases of a window [%(default)s]")
    parser.add_argument("--windows", type=int, default=32, help="how many, drawn at random [%(default)s]")
    add_seed_argument(parser, "of the draw")
    parser.add_argument("--keep-case", action="store_true", help="do not read lower-case bases as upper-case")
    parser.add_argument("--tolerance", type=float, help="exit with 1 if the first row's relative difference is above")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    return parser


def _advice(model: DNAModel, results: Sequence[Asymmetry]) -> str:
    """One line: what the numbers mean and what to do."""
    answer = next(result for result in results if result.checked)
    if answer.relative < 1e-4:
        if not model.equivariant:
            return "Both strands get the same answer on these windows."
        return (
            "Equivariant to rounding. For one embedding per sequence that does not depend on the strand: --strand both."
        )
    if model.equivariant:
        return "Equivariant by construction, yet it differs: is it --precision bf16?"
    if model.model.config.head == "classification":
        return (
            "The answer depends on the strand: average over both (conjoin=true in Caduceus's options), train with "
            "data.rc_augment=true, or take a Caduceus-PS."
        )
    if model.causal:
        return "The strands differ, as for any causal model: average scores over both, and embed with --strand both."
    return "The answer depends on the strand: use --strand both, or take an equivariant model (Caduceus-PS)."


def _write_json(arguments: argparse.Namespace, model: DNAModel, results: Sequence[Asymmetry]) -> None:
    from ...core.files import replacing

    fields = ("quantity", "maximum", "mean", "scale", "relative", "checked")
    content = {
        "model": model.name,
        "revision": model.revision,
        "fasta": arguments.fasta,
        "window": arguments.window,
        "windows": arguments.windows,
        "seed": arguments.seed,
        "tolerance": arguments.tolerance,
        "results": [{name: getattr(result, name) for name in fields} for result in results],
    }
    with replacing(arguments.json) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
