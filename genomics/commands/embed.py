"""``longscan genomics embed``: embeddings of FASTA records or BED intervals."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...core.cli import Parser
from ...core.errors import UserError
from .options import add_model_arguments, check_output

if TYPE_CHECKING:
    import numpy as np

    from ..data.items import GenomeItem
    from ..embedding import Embedder
    from ..inference import DNAModel
    from ..reading import Reading

_DESCRIPTION = """\
Write the embedding of every record of a FASTA file, or of every interval of a BED or narrowPeak file.

Records longer than --window are read in pieces. A causal model with a state of constant size (Mamba) carries it from
piece to piece: the result is that of one pass. Other models read windows that overlap, and the results of --context
bases on each side of a window are discarded: an approximation, exact only for what lies within the context.
Memory depends on --window and --batch-size, not on the length of the records.
"""


def embed(argv: list[str]) -> int:
    """``longscan genomics embed``."""
    arguments = _parser().parse_args(argv)
    from ..data.fasta import open_fasta
    from ..data.items import SequenceReader, check_n, interval_items, record_items
    from ..embedding_files import check_format
    from ..inference import load_model
    from ..reading import plan_reading

    output = check_format(check_output(arguments.output))
    _check(arguments)
    fasta = open_fasta(arguments.fasta)
    model = load_model(arguments)
    reader = SequenceReader(fasta, model.tokenizer, arguments.keep_case)
    if arguments.bed is None:
        items = record_items(reader)
    else:
        items = interval_items(reader, arguments.bed, aliases=arguments.aliases, around_summit=arguments.around_summit)
    reading = plan_reading(
        model,
        max(item.length for item in items),
        strand=arguments.strand,
        window=arguments.window,
        context=arguments.context,
        carry=arguments.carry,
        batch_size=arguments.batch_size,
    )
    if arguments.pooling == "none":
        reading.check_tokens()
    items, left_out = check_n(items, arguments.max_n_fraction)
    _report_items(items, left_out, arguments)
    _write(arguments, output, model, reading, items)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan genomics embed", description=_DESCRIPTION)
    add_model_arguments(parser)
    data = parser.add_argument_group("sequences")
    data.add_argument("--fasta", required=True, help="FASTA (plain, bgzip, gzip), or embedded:yeast1, …")
    data.add_argument(
        "--bed", help="BED or narrowPeak: embed its intervals; those on strand - are reverse-complemented"
    )
    data.add_argument("--aliases", help="table of contig names, tab-separated, as UCSC's chromAlias.txt")
    data.add_argument("--around-summit", type=int, metavar="W", help="W bases around each summit, or interval's middle")
    data.add_argument("--max-n-fraction", type=float, metavar="F", help="leave out items with a larger share of N")
    data.add_argument("--keep-case", action="store_true", help="do not read lower-case (soft-masked) bases as upper")
    how = parser.add_argument_group("reading")
    how.add_argument("--pooling", choices=("mean", "max", "last", "none"), default="mean", help="none: every base")
    how.add_argument("--strand", choices=("forward", "reverse", "both"), default="forward", help="both: their mean")
    how.add_argument("--window", type=int, metavar="W", help="bases at once [8192 with a carried state, else 32768]")
    how.add_argument(
        "--context", type=int, metavar="C", help="bases discarded beside a window [8192 causal, else 4096]"
    )
    how.add_argument(
        "--carry", action=argparse.BooleanOptionalAction, default=None, help="carry the state, or not [if it can be]"
    )
    parser.add_argument("--output", required=True, help="file to write: .parquet or .npz")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    if arguments.bed is None:
        for name in ("aliases", "around_summit"):
            if getattr(arguments, name) is not None:
                raise UserError(f"--{name.replace('_', '-')}: has no meaning without --bed; give --bed or remove it")


def _report_items(items: Sequence[GenomeItem], left_out: Sequence[str], arguments: argparse.Namespace) -> None:
    if left_out:
        shown = ", ".join(left_out[:5]) + (", …" if len(left_out) > 5 else "")
        _say(f"left out for more than {arguments.max_n_fraction:g} N: {len(left_out)} item(s): {shown}")
    padded = [item for item in items if item.padding]
    if padded:
        total = sum(item.padding for item in padded)
        _say(f"padded with N past the ends of contigs: {len(padded)} item(s), {total} bases; first: {padded[0].name}")


def _write(
    arguments: argparse.Namespace, output: Any, model: DNAModel, reading: Reading, items: Sequence[GenomeItem]
) -> None:
    from tqdm import tqdm

    import longscan

    from ..embedding import Embedder
    from ..embedding_files import write_pooled, write_tokens

    embedder = Embedder(model, reading)
    tokens = _estimate(embedder, items)
    longest = max(item.length for item in items)
    metadata = {
        "model": model.name,
        "revision": model.revision,
        "pooling": arguments.pooling,
        "strand": reading.strand,
        "window": reading.window,
        "method": reading.method if longest > reading.window else "one pass (exact)",
        "fasta": arguments.fasta,
        "longscan_version": longscan.__version__,
    }
    with tqdm(total=tokens, unit="base", unit_scale=True, disable=None, desc="embed") as bar:
        embedder.progress = bar.update
        if arguments.pooling == "none":
            write_tokens(output, items, _all_finite_pieces(items, embedder.tokens(items)), model.d_model, metadata)
        else:
            write_pooled(
                output, items, _all_finite(items, embedder.pooled(items, arguments.pooling)), model.d_model, metadata
            )
    print(f"{len(items)} item(s), {model.d_model} channels -> {output}")


def _all_finite(items: Sequence[GenomeItem], vectors: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for item, vector in zip(items, vectors, strict=True):
        yield _finite(item, vector)


def _all_finite_pieces(
    items: Sequence[GenomeItem], features: Iterable[Iterator[np.ndarray]]
) -> Iterator[Iterator[np.ndarray]]:
    for item, pieces in zip(items, features, strict=True):
        yield map(partial(_finite, item), pieces)


def _finite(item: GenomeItem, array: np.ndarray) -> np.ndarray:
    if not math.isfinite(array.sum(dtype="float64")):
        raise UserError(f"{item.name!r}: its embedding is not finite; check the model's weights, or --precision 32")
    return array


def _estimate(embedder: Embedder, items: Sequence[GenomeItem]) -> int:
    """Say what is to come; return the tokens that it takes."""
    reading = embedder.reading
    works = [reading.work(item.length) for item in items]
    windows, tokens = sum(work[0] for work in works), sum(work[1] for work in works)
    longest = max(item.length for item in items)
    bases = sum(item.length for item in items)
    _say(f"{len(items)} item(s), {bases:,} bases, {windows:,} window(s), strand {reading.strand}")
    if longest > reading.window:
        _say(f"items above {reading.window:,} bases: {reading.method}")
    length = min(longest, reading.window)
    alike = windows if longest > reading.window else sum(item.length == length for item in items)
    count = 1 if reading.carry and longest > reading.window else min(reading.batch(length), alike)
    if tokens <= 4 * count * length:
        _say("time and memory: not estimated, this is a batch or two")
        return tokens
    seconds = embedder.trial(count, length) * tokens
    _say(f"estimated time {_duration(seconds)}, peak memory {_peak_memory(embedder.model.device.type):.2f} GB")
    return tokens


def _peak_memory(device: str) -> float:
    """GB in use at the peak so far, after a batch of the largest size: of the GPU, or of this process."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_reserved() / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _say(text: str) -> None:
    print(f"embed: {text}", file=sys.stderr)
