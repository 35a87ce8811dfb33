"""``longscan genomics relatives``: from an alignment of two genomes to targets for pretraining."""

from __future__ import annotations

from pathlib import Path

from ...core.cli import Parser
from ...core.errors import UserError

_DESCRIPTION = """\
Write two aligned genomes, each in the coordinates of the other, so that a model can be pretrained to say what
evolution has made of every base (data.relatives; genomics/arabidopsis_relatives is an example).

The alignment is a PAF file of minimap2 with CIGARs: minimap2 -cx asm20 RELATIVE.fa GENOME.fa > ALIGNMENT.paf

Of both genomes are written NAME.relative.fa (what the other has in the place of each base: A, C, G, T, - where it has
none, N where nothing is known) and NAME.aligned.bed (the stretches that are aligned, to train on). With --bed, what is
not train in it is held out: it stays for validation and test, and the relative is told nothing of it.
"""


def relatives(argv: list[str]) -> int:
    """``longscan genomics relatives``: 0."""
    parser = Parser(prog="longscan genomics relatives", description=_DESCRIPTION)
    parser.add_argument("--fasta", required=True, metavar="GENOME.fa", help="the genome that was aligned")
    parser.add_argument("--relative", required=True, metavar="RELATIVE.fa", help="what it was aligned with")
    parser.add_argument("--paf", required=True, metavar="ALIGNMENT.paf", help="the alignment (plain or gzip)")
    parser.add_argument("--bed", help="intervals of GENOME with train, valid or test in column 4")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write to")
    parser.add_argument(
        "--min-mapping-quality", type=int, default=5, help="leave out less certain alignments [%(default)s]"
    )
    arguments = parser.parse_args(argv)
    from ...core.report import print_table
    from ..data.bed import read_bed
    from ..data.fasta import open_fasta
    from ..data.paf import read_paf
    from ..data.relative_files import write_relatives

    if Path(arguments.output).exists() and not Path(arguments.output).is_dir():
        raise UserError(f"--output {arguments.output}: is no folder; name another")
    readers = open_fasta(arguments.fasta), open_fasta(arguments.relative)
    split = read_bed(arguments.bed, readers[0].lengths) if arguments.bed else None
    found = read_paf(arguments.paf, readers[0].lengths, readers[1].lengths)
    kept = [alignment for alignment in found if alignment.mapping_quality >= arguments.min_mapping_quality]
    if not kept:
        raise UserError(
            f"{arguments.paf}: none of {len(found)} alignments has a mapping quality of "
            f"{arguments.min_mapping_quality}; lower --min-mapping-quality"
        )
    print(
        f"{len(kept):,} of {len(found):,} primary alignments have a mapping quality of {arguments.min_mapping_quality}"
    )
    rows = [
        (
            str(written.fasta), f"{written.bases:,}", f"{written.aligned / written.bases:.3f}",
            f"{written.identical / max(written.aligned, 1):.3f}", f"{written.deleted / written.bases:.4f}",
            str(written.bed), f"{written.stretches:,}", f"{written.stretch_bases:,}",
        )
        for written in write_relatives(readers, kept, Path(arguments.output), split)
    ]  # fmt: skip
    print_table(("written", "bases", "aligned", "identical", "deleted", "written", "stretches", "bases"), rows)
    return 0
