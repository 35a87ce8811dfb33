"""``longscan genomics score-variants``: effects of the variants of a VCF."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.cli import Parser
from ...core.errors import UserError
from ...core.report import print_table
from .options import add_model_arguments, add_scoring_arguments, check_output

if TYPE_CHECKING:
    from ..data.variants import VcfRecord
    from ..variants.scores import VariantScorer

#: REFs that must have been compared before a share of mismatches says anything.
_ENOUGH = 10


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    from ..data.contigs import ContigNames, read_aliases
    from ..data.fasta import open_fasta
    from ..data.variants import open_vcf
    from ..inference import load_model
    from ..variants.alleles import STATUSES
    from ..variants.scores import VariantScorer

    if not 0 <= arguments.max_ref_mismatch <= 1:
        raise UserError(f"--max-ref-mismatch {arguments.max_ref_mismatch:g}: is a share, from 0 to 1")
    _writer_class(arguments.output)
    check_output(arguments.output)
    fasta = open_fasta(arguments.fasta)
    aliases = read_aliases(arguments.aliases, fasta.names) if arguments.aliases else None
    contigs = ContigNames(fasta.names, str(fasta.path), aliases)
    with open_vcf(arguments.vcf, contigs, fasta.lengths, allow_unsorted=arguments.allow_unsorted) as vcf:
        scorer = VariantScorer(
            load_model(arguments), fasta, window=arguments.window, strand=arguments.strand,
            batch_size=arguments.batch_size, max_n=arguments.max_n, distance=arguments.embedding_distance,
            embedding_window=arguments.embedding_window, masked=not arguments.unmasked,
        )  # fmt: skip
        start = time.perf_counter()
        counts = _score(vcf, vcf.header, scorer, arguments)
        seconds = time.perf_counter() - start
    total = sum(counts.values())
    if not total:
        print(f"{arguments.vcf}: holds no record")
    else:
        rows = [(status, f"{counts[status]:,}", meaning) for status, meaning in STATUSES.items() if counts[status]]
        print_table(("status", "variants", "meaning"), [*rows, ("all", f"{total:,}", "ALTs of the VCF")])
        print(f"{total:,} variants in {seconds:.1f} s ({total / seconds:,.0f} variants/s)")
    print(f"wrote {arguments.output}")
    return 0


def _score(
    records: Iterable[VcfRecord], header: list[str], scorer: VariantScorer, arguments: argparse.Namespace
) -> Counter[str]:
    """Score and write piece by piece, so that memory does not grow with the VCF; return how often each status came."""
    from tqdm import tqdm

    from ..data.variants import count_alts
    from ..variants.output import Provenance, open_output

    counts: Counter[str] = Counter()
    shown = sys.stderr.isatty()
    total = count_alts(arguments.vcf) if shown else None  # a pass over the text, so that the bar knows the time left
    with (
        open_output(arguments.output) as write,
        tqdm(total=total, unit=" variants", disable=not shown, unit_scale=True) as bar,
    ):
        writer = _writer_class(arguments.output)(write, header, Provenance.of(scorer), scorer.distance)
        for piece in _pieces(records, scorer.chunk):
            effects = scorer.score(list(itertools.chain.from_iterable(record.variants() for record in piece)))
            counts.update(effects.status)
            _check_build(counts, arguments)
            writer.add(piece, effects)
            bar.update(len(effects.status))
    return counts


def _pieces(records: Iterable[VcfRecord], variants: int) -> Iterator[list[VcfRecord]]:
    """Split records into lists with about as many ALTs."""
    piece, count = list["VcfRecord"](), 0
    for record in records:
        piece.append(record)
        count += len(record.alts)
        if count >= variants:
            yield piece
            piece, count = [], 0
    if piece:
        yield piece


def _check_build(counts: Counter[str], arguments: argparse.Namespace) -> None:
    wrong = counts["ref_mismatch"]
    compared = wrong + counts["scored"] + counts["not_finite"]
    if compared >= _ENOUGH and wrong > arguments.max_ref_mismatch * compared:
        raise UserError(
            f"{arguments.vcf}: REF differs from {arguments.fasta} in {wrong} of {compared} variants "
            f"({wrong / compared:.0%}); wrong genome build? take the FASTA that the VCF was made with, or raise "
            f"--max-ref-mismatch {arguments.max_ref_mismatch:g}"
        )


def _writer_class(output: str) -> type:
    """Choose by the name: TSV or VCF.

    Raises:
        UserError: another ending.
    """
    from ..variants.output import TableWriter, VcfWriter

    name = Path(output).name.lower().removesuffix(".gz").removesuffix(".bgz")
    for ending, writer in ((".tsv", TableWriter), (".vcf", VcfWriter)):
        if name.endswith(ending):
            return writer
    raise UserError(f"--output {output}: the ending says the format; use .tsv, .tsv.gz, .vcf or .vcf.gz")


def _parser() -> Parser:
    parser = Parser(
        prog="longscan genomics score-variants",
        description=(
            "How much likelier a language model finds ALT than REF, for every ALT of a VCF. ALTs that cannot be\n"
            "scored are kept in the result with the reason.\n\n"
            "TSV columns: contig, pos (1-based, as in the VCF), id, ref, alt; status (scored, or why not) and method;\n"
            "log_likelihood_ratio = log p(ALT) - log p(REF), natural logarithm, the mean of the strands asked for;\n"
            "llr_forward and llr_reverse; n_bases (positions of the window that are N or beyond the contig); and what\n"
            "the scores were computed with. A VCF keeps all its fields and gets LONGSCAN_ fields in INFO."
        ),
    )
    parser.add_argument("--vcf", required=True, help="variants: plain, gzip or bgzip; sorted")
    parser.add_argument("--fasta", required=True, help="the genome that REF is from")
    parser.add_argument("--output", required=True, help="FILE.tsv, FILE.vcf, or either with .gz (bgzip)")
    parser.add_argument("--aliases", help="table of other names of the FASTA's contigs (UCSC's chromAlias.txt)")
    parser.add_argument("--allow-unsorted", action="store_true", help="take records in any order")
    parser.add_argument(
        "--max-ref-mismatch", type=float, default=0.1, metavar="SHARE",
        help=f"stop when REF differs from the FASTA more often, once {_ENOUGH} were compared [%(default)s]",
    )  # fmt: skip
    add_scoring_arguments(parser)
    add_model_arguments(parser)
    return parser
