"""Two aligned genomes in each other's coordinates, from PAF to the targets of pretraining."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.genomics.data import FastaDataModule
from longscan.genomics.data.alignment import LONGEST_DELETION, PairedGenome, known_stretches, pair_genomes
from longscan.genomics.data.objectives import Masking
from longscan.genomics.data.paf import Alignment, read_paf
from longscan.genomics.tokenizer import MASK, DNATokenizer, N, reverse_complement

GENOME, RELATIVE = {"a": "ACGTACGTAC", "b": "GGGTTTAAAC"}, {"x": "TTACGGTACGAA", "y": "CCCC"}


def alignment(cigar: list[tuple[int, str]], **changes: Any) -> Alignment:
    steps = np.array([ord(letter) for _, letter in cigar], dtype=np.uint8)
    lengths = np.array([length for length, _ in cigar])
    given = {
        "query": "a", "query_start": 0, "query_end": 7, "reverse": False, "target": "x", "target_start": 2,
        "matches": 7, "mapping_quality": 60, "steps": steps, "lengths": lengths,
    }  # fmt: skip
    return Alignment(**(given | changes))


def text(symbols: np.ndarray) -> str:
    return "".join("NNNNNN-ACGTN"[i] for i in symbols)


def paired(*alignments: Alignment, shown: np.ndarray | None = None) -> tuple[str, str]:
    genome, relative = PairedGenome(GENOME), PairedGenome(RELATIVE)
    pair_genomes(genome, relative, alignments, shown)
    return text(genome.relative(relative)), text(relative.relative(genome))


def test_a_forward_alignment() -> None:
    # a  ACG-TACGTAC    the relative has a G more, and lacks the second G
    # x  ACGGTAC-
    of_genome, of_relative = paired(alignment([(3, "M"), (1, "D"), (3, "="), (1, "I")], query_end=7))
    assert of_genome == "ACGTAC-NNN" + "N" * 10
    assert of_relative == "NNACG-TACNNN" + "N" * 4
    # A substitution is what each has in the place of the other.
    of_genome, of_relative = paired(alignment([(4, "M")], query="b", query_start=0, query_end=4, target_start=0))
    assert of_genome == "N" * 10 + "TTAC" + "N" * 6
    assert of_relative == "GGGT" + "N" * 12


def test_a_reverse_alignment_pairs_complements_from_the_end() -> None:
    # a[6:2:-1] with x[6:10], a[2] with nothing, a[1] with x[10].
    cigar = [(4, "M"), (1, "I"), (1, "M")]
    of_genome, of_relative = paired(alignment(cigar, query_start=1, query_end=7, reverse=True, target_start=6))
    assert of_genome == "NT-CGTANNN" + "N" * 10
    assert of_relative == "NNNNNNCGTAGN" + "N" * 4


def test_the_alignment_with_more_matches_counts_whatever_the_order() -> None:
    good = alignment([(4, "M")], query_end=4, target="x", target_start=2, matches=4)
    bad = alignment([(4, "M")], query_end=4, target="y", target_start=0, matches=1)
    assert paired(good, bad) == paired(bad, good)
    assert paired(good, bad)[0][:4] == "ACGG"


def test_long_insertions_are_unknown() -> None:
    for length, mark in ((LONGEST_DELETION, "-"), (LONGEST_DELETION + 1, "N")):
        genome, relative = PairedGenome({"a": "A" * 100}), PairedGenome({"x": "A" * 100})
        steps = [(5, "M"), (length, "I"), (5, "M"), (length, "D"), (5, "M")]
        given = alignment(steps, query_start=10, query_end=25 + length, target_start=3)
        pair_genomes(genome, relative, [given])
        assert text(genome.relative(relative)) == ("N" * 10 + "AAAAA" + mark * length + "A" * 10).ljust(100, "N")
        assert text(relative.relative(genome)) == ("N" * 3 + "A" * 10 + mark * length + "AAAAA").ljust(100, "N")


def test_what_is_held_out_does_not_come_back_through_the_relative() -> None:
    shown = np.ones(20, dtype=bool)
    shown[:4] = False
    whole = alignment([(3, "M"), (1, "D"), (3, "M")], query_end=6)
    of_genome, of_relative = paired(whole, shown=shown)
    assert of_genome[:6] == "ACGTAC"
    assert of_relative == "NNNNNNNACNNN" + "N" * 4  # neither the bases nor the deletion after them
    assert paired(whole)[1] == "NNACG-TACNNN" + "N" * 4


def test_random_alignments_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        genome = {"a": "".join(generator.choice(list("ACGTN"), 200))}
        relative = {"x": "".join(generator.choice(list("ACGTn"), 200))}
        cigar = [(int(generator.integers(1, 6)), str(generator.choice(list("M=XID")))) for _ in range(20)]
        query_bases = sum(length for length, letter in cigar if letter != "D")
        reverse, start, target = bool(generator.random() < 0.5), int(generator.integers(0, 60)), 17
        given = alignment(cigar, query_start=start, query_end=start + query_bases, reverse=reverse, target_start=target)
        both = PairedGenome(genome), PairedGenome(relative)
        pair_genomes(*both, [given])
        expected = [list("N" * 200), list("N" * 200)]
        complement = dict(zip("ACGTN", "TGCAN", strict=True))
        q, t = (start + query_bases - 1, target) if reverse else (start, target)
        for length, letter in cigar:
            for _ in range(length):
                if letter in "M=X":
                    x, y = relative["x"][t].upper(), genome["a"][q]
                    expected[0][q], expected[1][t] = (complement[x], complement[y]) if reverse else (x, y)
                elif letter == "I":
                    expected[0][q] = "-"
                else:
                    expected[1][t] = "-"
                q += (-1 if reverse else 1) * (letter != "D")
                t += letter != "I"
        assert text(both[0].relative(both[1])) == "".join(expected[0])
        assert text(both[1].relative(both[0])) == "".join(expected[1])


def test_known_stretches() -> None:
    known = np.array([c == "x" for c in "..xx.x....xxxx.x..x"])
    assert known_stretches(known, joined=0, least=1) == [(2, 4), (5, 6), (10, 14), (15, 16), (18, 19)]
    assert known_stretches(known, joined=1, least=1) == [(2, 6), (10, 16), (18, 19)]
    assert known_stretches(known, joined=2, least=5) == [(10, 19)]
    assert known_stretches(np.zeros(5, dtype=bool), joined=2, least=1) == []


PAF = "a\t10\t0\t7\t+\tx\t12\t2\t9\t6\t8\t60\ttp:A:P\tcg:Z:3M1D3M1I\n"


def test_paf_is_read(tmp_path: Path) -> None:
    lengths = [{name: len(bases) for name, bases in each.items()} for each in (GENOME, RELATIVE)]
    file = tmp_path / "x.paf"
    file.write_text(PAF + PAF.replace("tp:A:P", "tp:A:S") + "\n" + PAF.replace("\t+\t", "\t-\t"))
    found = read_paf(file, *lengths)
    assert [(each.reverse, each.query_end, each.target_start, each.matches) for each in found] == [
        (False, 7, 2, 6), (True, 7, 2, 6),
    ]  # fmt: skip
    assert found[0].steps.tobytes() == b"MDMI"
    assert found[0].lengths.tolist() == [3, 1, 3, 1]
    for old, new, message in (
        ("\t60\t", "\t", r"x\.paf:1: column 12 'tp:A:P' is not a whole number"),
        (PAF, "a\t10\n", r"x\.paf:1: 2 tab-separated column\(s\), PAF has at least 12"),
        ("\t2\t9\t", "\t2\t1o\t", r"x\.paf:1: column 9 '1o' is not a whole number"),
        ("a\t10", "c\t10", r"x\.paf:1: query 'c' is not in its FASTA \(known: a, b\)"),
        ("x\t12", "x\t13", r"x\.paf:1: target 'x' has 13 bases here and 12 in its FASTA; is it another assembly"),
        ("\t+\t", "\t.\t", r"x\.paf:1: strand '\.' \(column 5\) is neither \+ nor -"),
        ("\tcg:Z:3M1D3M1I", "", r"x\.paf:1: no CIGAR \(tag cg:Z:\).*; run minimap2 with -c"),
        ("3M1I", "3M2I", r"x\.paf:1: the CIGAR covers 8 bases of the query, which has 7 from 0 to 7"),
        ("1D", "2D", r"x\.paf:1: the CIGAR covers 8 bases of the target, which has 7 from 2 to 9"),
        ("tp:A:P", "tp:A:S", r"x\.paf: holds no primary alignment; are the two genomes related"),
    ):
        file.write_text(PAF.replace(old, new))
        with pytest.raises(UserError, match=message):
            read_paf(file, *lengths)


@pytest.fixture
def genomes(tmp_path: Path) -> Callable[[], tuple[str, str]]:
    """Writes two genomes of 3,000 bases and their alignment; gives their sequences."""
    generator = np.random.default_rng(3)
    one = "".join(generator.choice(list("ACGT"), 3000))
    changed = generator.random(3000) < 0.1
    two = "".join(base if not change else "ACGT"["CGTA".index(base)] for base, change in zip(one, changed, strict=True))
    two = "TTTTT" + two[:1500] + two[1520:]  # twenty bases are lost

    def write() -> tuple[str, str]:
        (tmp_path / "one.fa").write_text(f">a\n{one}\n")
        (tmp_path / "two.fa").write_text(f">x\n{two}\n")
        (tmp_path / "split.bed").write_text("a\t0\t1000\ttrain\na\t1000\t2000\tvalid\na\t2000\t3000\ttrain\n")
        paf = f"a\t3000\t0\t3000\t+\tx\t{len(two)}\t5\t{len(two)}\t2700\t3000\t60\ttp:A:P\tcg:Z:1500M20I1480M\n"
        (tmp_path / "one.paf").write_text(paf)
        return one, two

    return write


def test_the_command_and_the_data_module(genomes: Any, tmp_path: Path, command: Any) -> None:
    one, two = genomes()
    line = f"genomics relatives --fasta {tmp_path}/one.fa --relative {tmp_path}/two.fa --paf {tmp_path}/one.paf"
    outcome = command(f"{line} --bed {tmp_path}/split.bed --output {tmp_path}/out")
    assert outcome.status == 0, outcome.err
    assert "1 of 1 primary alignments have a mapping quality of 5" in outcome.out
    out = tmp_path / "out"
    lines = (out / "one.relative.fa").read_text().splitlines()
    assert lines[0] == ">a"
    assert "".join(lines[1:]) == two[5:1505] + "-" * 20 + two[1505:]
    assert {len(each) for each in lines[1:-1]} == {80}
    bed = "a\t0\t1000\ttrain\na\t2000\t3000\ttrain\na\t1000\t2000\tval\n"
    assert (out / "one.aligned.bed").read_text() == bed
    lines = (out / "two.relative.fa").read_text().splitlines()
    # The relative is told nothing of the thousand bases of validation, of which it lacks twenty.
    assert "".join(lines[1:]) == "N" * 5 + one[:1000] + "N" * 980 + one[2000:]
    assert (out / "two.aligned.bed").read_text() == "x\t5\t1005\ttrain\nx\t1985\t2985\ttrain\n"

    data = FastaDataModule(
        [str(tmp_path / "one.fa"), str(tmp_path / "two.fa")],
        [str(out / "one.aligned.bed"), str(out / "two.aligned.bed")],
        seqlen=100,
        objective="masked",
        masking=Masking(0.15, 1.0, 0.0),
        tokenizer=DNATokenizer(special_tokens="none"),
        split="column",
        long_intervals="tile",
        rc_augment=True,
        relatives=[str(out / "one.relative.fa"), str(out / "two.relative.fa")],
    )
    data.setup()
    assert data.train_set is not None
    assert data.val_set is not None
    assert len(data.train_set) == 40
    genome = {
        "a": (one, two[5:1505] + "-" * 20 + two[1505:]),
        "x": (two, "N" * 5 + one[:1000] + "N" * 980 + one[2000:]),
    }
    tokenizer, strands = data.tokenizer, set()
    for index in range(40):
        sample = data.train_set[index]
        name, start = data.train_set.position(index)
        bases, relative = (each[start : start + 100] for each in genome[name])
        masked = sample["input_ids"] == MASK
        assert 3 < masked.sum() < 30
        forward = tokenizer.encode_symbols(bases)
        flip = not np.array_equal(np.where(masked, MASK, forward), sample["input_ids"])
        strands.add(flip)
        if flip:
            bases, relative = reverse_complement(bases), reverse_complement(relative)
        own = tokenizer.encode_symbols(bases)
        assert np.array_equal(np.where(masked, MASK, own), sample["input_ids"])
        theirs = np.where(np.array(list(relative)) == "N", -100, tokenizer.encode_symbols(relative.replace("-", "N")))
        assert np.array_equal(sample["labels"], np.where(masked, own, theirs))
    assert strands == {False, True}
    # Validation asks for the masked bases alone.
    for index in range(len(data.val_set)):
        sample = data.val_set[index]
        assert np.array_equal(sample["labels"] != -100, sample["input_ids"] == MASK)


def test_a_deleted_base_is_a_target(genomes: Any, tmp_path: Path) -> None:
    genomes()
    (tmp_path / "r.fa").write_text(f">a\n{'-' * 3000}\n")
    options = {"seqlen": 100, "block_size": 200, "objective": "masked", "relatives": str(tmp_path / "r.fa")}
    sample = _first(str(tmp_path / "one.fa"), **options)
    assert (sample["labels"] == N).sum() > 70
    assert not (sample["labels"] == -100).any()


def _first(fasta: str, **options: Any) -> Any:
    data = FastaDataModule(fasta, **options)
    data.setup()
    assert data.train_set is not None
    return data.train_set[0]


def test_errors(genomes: Any, tmp_path: Path, command: Any) -> None:
    genomes()

    def fails(relative: str, message: str, **changes: Any) -> None:
        (tmp_path / "r.fa").write_text(relative)
        options = {"objective": "masked", "relatives": str(tmp_path / "r.fa"), "seqlen": 100, "block_size": 200}
        with pytest.raises(UserError, match=message):
            _first(str(tmp_path / "one.fa"), **(options | changes))

    for relative in (">b\n" + "A" * 3000 + "\n", ">a\nACGT\n", ">a\n" + "A" * 3000 + "\n>b\nA\n"):
        fails(relative, r"r\.fa: must be in the coordinates of .*one\.fa: the same records, in the same order")
    fails(">a\n" + "*" * 3000, r"r\.fa: record 'a', line 2: illegal character '\*'")
    fails(
        ">a\nA\n",
        r"relatives: 1 files for 1 FASTA files with objective 'causal'; give one for each",
        objective="causal",
    )
    fails(">a\nA\n", r"relatives: 2 files for 1 FASTA files", relatives=["a", "b"])
    # A gap is no base of a genome.
    (tmp_path / "gap.fa").write_text(">a\nACGT-ACGT\n")
    with pytest.raises(UserError, match=r"gap\.fa: record 'a', line 2: illegal character '-'"):
        FastaDataModule(str(tmp_path / "gap.fa"), seqlen=2, block_size=2).setup()
    (tmp_path / "plain.bed").write_text("a\t0\t1000\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "one.fa").write_text((tmp_path / "two.fa").read_text())
    line = f"genomics relatives --fasta {tmp_path}/one.fa --relative {tmp_path}/two.fa --output {tmp_path}/out"
    for options, message in (
        (f"--paf {tmp_path}/none.paf", "none.paf: no such file"),
        (f"--paf {tmp_path}/one.paf --min-mapping-quality 61", "none of 1 alignments has a mapping quality of 61"),
        (f"--paf {tmp_path}/one.paf --relative {tmp_path}/other/one.fa", "would have one name; rename one"),
        (
            f"--paf {tmp_path}/one.paf --bed {tmp_path}/plain.bed",
            "plain.bed:1: column 4 is missing, expected train, valid",
        ),
        (f"--paf {tmp_path}/one.paf --output {tmp_path}/one.fa", "one.fa: is no folder"),
    ):
        outcome = command(f"{line} {options}")
        assert outcome.status == 2
        assert message in outcome.err
        assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
