"""``longscan genomics mutate``: the effect of every substitution in a region."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.cli import Parser
from ...core.errors import UserError, nearest
from .options import add_model_arguments, add_scoring_arguments, check_output

if TYPE_CHECKING:
    import numpy as np

    from ..data.contigs import ContigNames
    from ..data.fasta import FastaReader
    from ..inference import DNAModel
    from ..variants.scores import VariantScorer

_REGION = re.compile(r"(.+):(\d[\d,]*)-(\d[\d,]*)", re.ASCII)


def mutate(argv: list[str]) -> int:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    import numpy as np

    from ..data.contigs import ContigNames, read_aliases
    from ..data.fasta import open_fasta
    from ..inference import load_model
    from ..variants.heat_map import write_heat_map
    from ..variants.scores import VariantScorer

    output = check_output(arguments.output)
    stem = output.name.removesuffix(".gz")
    if not stem.endswith(".tsv"):
        raise UserError(f"--output {output}: is a table; name it .tsv or .tsv.gz")
    plot = Path(arguments.plot) if arguments.plot else output.with_name(stem.removesuffix(".tsv") + ".png")
    if plot.suffix.lower() != ".png":
        raise UserError(f"--plot {plot}: is a PNG; name it .png")
    check_output(plot, "--plot")
    fasta = open_fasta(arguments.fasta)
    aliases = read_aliases(arguments.aliases, fasta.names) if arguments.aliases else None
    contig, start, end = parse_region(arguments.region, ContigNames(fasta.names, str(fasta.path), aliases), fasta)
    model = load_model(arguments)
    target = _target_class(model, arguments.class_name)
    scorer = VariantScorer(
        model, fasta, window=arguments.window, strand=arguments.strand, batch_size=arguments.batch_size,
        max_n=arguments.max_n, distance=arguments.embedding_distance, embedding_window=arguments.embedding_window,
        target_class=target, masked=not arguments.unmasked,
    )  # fmt: skip
    reference = fasta.fetch(contig, start - 1, end).upper()
    effects, skipped = _score_region(scorer, contig, start, reference, output, arguments.class_name)
    what = "log p(ALT) − log p(REF)" if target is None else f"change of P({arguments.class_name})"
    write_heat_map(plot, effects, reference, start, f"{contig}:{start:,}-{end:,}  {arguments.model}", what)
    print(f"{contig}:{start}-{end}: {(~np.isnan(effects)).sum():,} substitutions scored, {skipped:,} skipped")
    print(f"wrote {output} and {plot}")
    return 0


def parse_region(text: str, contigs: ContigNames, fasta: FastaReader) -> tuple[str, int, int]:
    """Read ``contig:start-end`` (1-based, both ends included, commas allowed) as the FASTA's contig, start and end.

    Raises:
        UserError: another form, an unknown contig, or a region that is not on it.
    """
    match = _REGION.fullmatch(text)
    if match is None:
        raise UserError(f"--region {text}: is not of the form contig:start-end, as in chr4:1,001-1,100")
    contig = contigs.require(match[1], f"--region {text}")
    start, end, length = int(match[2].replace(",", "")), int(match[3].replace(",", "")), fasta.lengths[contig]
    if not 1 <= start <= end <= length:
        raise UserError(f"--region {text}: {contig} has the bases 1 to {length}; give 1 <= start <= end <= {length}")
    return contig, start, end


def _score_region(
    scorer: VariantScorer, contig: str, start: int, reference: str, output: Path, class_name: str | None
) -> tuple[np.ndarray, int]:
    """Write the table; return the effects (4, length), NaN at the reference and where skipped, and the number skipped.

    A reference base that is not A, C, G or T gets four rows, all skipped.
    """
    import numpy as np
    from tqdm import tqdm

    from ..data.variants import Variant
    from ..variants.heat_map import BASES
    from ..variants.output import Provenance, open_output, score_cells, score_columns

    variants = (
        Variant(contig, start + offset, base, alt)
        for offset, base in enumerate(reference)
        for alt in BASES
        if alt != base
    )
    effects = np.full((4, len(reference)), math.nan)
    columns, skipped = score_columns(scorer.distance), 0
    tail = Provenance.of(scorer).columns()
    if class_name is not None:
        tail["class"] = class_name
    if class_name is not None:
        columns = ["probability_change", "change_forward", "change_reverse"]
    with open_output(output) as write, tqdm(total=3 * len(reference), unit=" variants", disable=None) as bar:
        names = ["contig", "pos", "ref", "alt", "status", "method", *columns, "n_bases", *tail]
        write("\t".join(names) + "\n")
        while piece := list(itertools.islice(variants, scorer.chunk)):
            found = scorer.score(piece)
            score, cells = found.score, score_cells(found, scorer.distance)
            for i, variant in enumerate(piece):
                effects[BASES.index(variant.alt), variant.pos - start] = score[i]
                skipped += found.status[i] != "scored"
                row = [contig, str(variant.pos), variant.ref, variant.alt, found.status[i], found.method[i]]
                write("\t".join([*row, *cells[i], str(found.n_bases[i]), *tail.values()]) + "\n")
            bar.update(len(piece))
    return effects, skipped


def _target_class(model: DNAModel, name: str | None) -> int | None:
    """The number of the class that ``--class`` names.

    Raises:
        UserError: a classifier without it, a language model with it, or an unknown class.
    """
    config = model.model.config
    if config.head == "language_model":
        if name is not None:
            raise UserError(f"--class {name}: {model.name} is a language model; leave it out")
        return None
    names = list(config.class_names or map(str, range(config.num_classes)))
    if name is None:
        raise UserError(f"{model.name}: is a classifier; say with --class whose probability to compare ({names})")
    if name not in names:
        raise UserError(f"--class {name}: {model.name} has no such class ({nearest(name, names)})")
    return names.index(name)


def _parser() -> Parser:
    parser = Parser(
        prog="longscan genomics mutate",
        description=(
            "Score every substitution of every base in a region (in-silico saturation mutagenesis), with a language\n"
            "model or, with --class, a classifier. Writes a table and a heat map."
        ),
    )
    parser.add_argument("--fasta", required=True, help="the genome")
    parser.add_argument("--region", required=True, help="contig:start-end, 1-based, both ends included")
    parser.add_argument("--output", required=True, help="FILE.tsv or FILE.tsv.gz")
    parser.add_argument("--plot", help="heat map, PNG [FILE.png beside the table]")
    parser.add_argument("--aliases", help="table of other names of the FASTA's contigs (UCSC's chromAlias.txt)")
    parser.add_argument("--class", dest="class_name", help="of a classifier: the class whose probability is compared")
    add_scoring_arguments(parser)
    add_model_arguments(parser)
    return parser
