"""Windows, splits, masking and augmentation of the language-model data, on real chromosomes and constructed ones."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey
from longscan.genomics.data.genome import Gaps
from longscan.genomics.data.objectives import Masking
from longscan.genomics.data.pretraining import FastaDataModule
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement_ids

NONE = DNATokenizer(special_tokens="none")


def module(fasta: Any = "embedded:yeast1", **options: Any) -> FastaDataModule:
    options = {"seqlen": 500, "block_size": 10_000, "batch_size": 16} | options
    result = FastaDataModule(fasta, **options)
    result.setup()
    return result


def random_dna(length: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def write_fasta(path: Path, **records: str) -> str:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return str(path)


def starts(dataset: Any) -> list[tuple[str, int, int]]:
    """(contig, start, end) of every window."""
    windows = dataset.windows
    return [
        (dataset.genome.names[contig], int(start), int(end))
        for contig, start, end in zip(windows.contig, windows.start, windows.end, strict=True)
    ]


def same(first: Any, second: Any) -> bool:
    return all(torch.equal(a[k], b[k]) for a, b in zip(first, second, strict=True) for k in ("input_ids", "labels"))


# Causal samples


def test_causal_batch_is_the_text_shifted_by_one(yeast_text: str) -> None:
    data = module()
    for index in (0, 1, 200):
        name, start = data.train_set.position(index)
        assert name == "NC_001133.9"
        text = yeast_text[start : start + 500].upper()
        sample = data.train_set[index]
        assert NONE.decode(sample["input_ids"]) == text
        assert sample["input_ids"].shape == sample["labels"].shape == (500,)
        assert NONE.decode(sample["labels"]) == text[1:]
        assert sample["labels"][-1] == 1  # [SEP]
    bare = module(tokenizer=NONE).train_set[3]
    assert bare["input_ids"].shape == (499,)
    assert np.array_equal(bare["input_ids"][1:], bare["labels"][:-1])


def test_published_hyenadna_reads_soft_masked_bases_as_unknown(yeast_text: str) -> None:
    data = module(tokenizer=DNATokenizer.hyenadna())
    sample, (_, start) = data.train_set[0], data.train_set.position(0)
    lower = np.array([base.islower() for base in yeast_text[start : start + 500]])
    assert np.array_equal(sample["input_ids"] == 6, lower)
    assert lower.sum() > 0
    assert (sample["labels"][:-1][lower[1:]] == -100).all()


def test_n_is_never_a_target_and_may_be_shown_as_padding(tmp_path: Path) -> None:
    sequence = random_dna(40) + "N" * 10 + random_dna(4950, 1)
    fasta = write_fasta(tmp_path / "a.fa", a=sequence)
    options: dict[str, Any] = {"seqlen": 100, "block_size": 500}
    for objective in ("causal", "masked"):
        for n_input, shown in (("n", 11), ("pad", 4)):
            data = module(fasta, objective=objective, n_input=n_input, masking=Masking(fraction=1.0), **options)
            sample = data.train_set[0]
            assert (sample["labels"] != 11).all()
            ids = sample["input_ids"]
            if objective == "causal":
                assert (ids[40:50] == shown).all()
                assert (sample["labels"][39:49] == -100).all()
                assert (sample["labels"] == -100).sum() == 10
            else:
                assert (ids[40:50] == shown).all()
                assert (sample["labels"][40:50] == -100).all()
                assert (sample["labels"] != -100).sum() == 90


# Masked samples


@pytest.mark.parametrize("random_ids", ["published", "nucleotides"])
def test_masking_fractions(random_ids: Any) -> None:
    symbols = np.random.default_rng(0).choice(np.array([7, 8, 9, 10, 11], dtype=np.uint8), 400_000)
    ids, targets = Masking(random_ids=random_ids).sample(symbols, np.random.default_rng(1))
    chosen = targets != -100
    real = symbols != 11
    assert not chosen[~real].any()
    assert np.array_equal(ids[~chosen], symbols[~chosen])
    assert np.array_equal(targets[chosen], symbols[chosen])
    assert chosen.sum() / real.sum() == pytest.approx(0.15, abs=0.003)
    lowest, count = (0, 12) if random_ids == "published" else (7, 4)
    # A random id is by chance [MASK] (published only) or the one that was there.
    by_chance = 1 / count
    masked = 0.8 + (0.1 * by_chance if random_ids == "published" else 0)
    assert (ids[chosen] == 3).mean() == pytest.approx(masked, abs=0.006)
    assert (ids[chosen] == symbols[chosen]).mean() == pytest.approx(0.1 + 0.1 * by_chance, abs=0.006)
    other = ids[chosen & (ids != 3) & (ids != symbols)]
    expected = {i for i in range(lowest, lowest + count)} - {3}
    assert set(other.tolist()) == expected
    assert len(other) / chosen.sum() == pytest.approx(
        0.1 * (1 - by_chance) - (0.1 * by_chance if random_ids == "published" else 0), abs=0.005
    )


def test_every_masked_sample_has_a_target() -> None:
    symbols = np.full(20, 11, dtype=np.uint8)
    symbols[7] = 8
    for seed in range(50):
        _, targets = Masking(fraction=0.01).sample(symbols, np.random.default_rng(seed))
        assert np.flatnonzero(targets != -100).tolist() == [7]


def test_masked_batches_of_a_real_chromosome() -> None:
    data = module("embedded:drosophila4", objective="masked")
    chosen = total = 0
    for batch in data.train_dataloader():
        assert batch["input_ids"].shape[1] == 500
        assert ((batch["labels"] == -100) | ((batch["labels"] >= 7) & (batch["labels"] <= 10))).all()
        assert (batch["labels"] != -100).any(1).all()
        chosen += int((batch["labels"] != -100).sum())
        total += int(((batch["input_ids"] != 11) | (batch["labels"] != -100)).sum())
    assert total > 1_000_000
    assert chosen / total == pytest.approx(0.15, abs=0.002)


# Randomness


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_batches_do_not_depend_on_the_number_of_workers(objective: Any) -> None:
    options = {"objective": objective, "rc_augment": True, "seqlen": 2000}
    assert same(
        list(module(num_workers=0, **options).train_dataloader()),
        list(module(num_workers=2, **options).train_dataloader()),
    )


def test_order_and_masks_change_with_the_epoch_but_not_in_evaluation() -> None:
    data = module(objective="masked", seqlen=1000)
    loader = data.train_dataloader()
    first, second = list(loader), list(loader)
    assert not torch.equal(first[0]["labels"], second[0]["labels"])
    key = data.train_set[SampleKey(0, 3)], data.train_set[SampleKey(1, 3)]
    assert not np.array_equal(key[0]["labels"], key[1]["labels"])
    assert np.array_equal(data.train_set[SampleKey(1, 3)]["labels"], key[1]["labels"])
    assert not np.array_equal(module(objective="masked", seqlen=1000, seed=1).train_set[3]["labels"], key[0]["labels"])
    (evaluation,) = data.val_dataloader()
    assert same(list(evaluation), list(evaluation))


def test_reverse_complement_is_shown_half_of_the_time_in_training_only() -> None:
    plain, augmented = module(tokenizer=NONE), module(tokenizer=NONE, rc_augment=True)
    flipped = 0
    for epoch in range(3):
        for index in range(len(plain.train_set)):
            (a,), (b,) = ([d.train_set[SampleKey(epoch, index)]] for d in (plain, augmented))
            whole = np.append(a["input_ids"], a["labels"][-1])
            seen = np.append(b["input_ids"], b["labels"][-1])
            if not np.array_equal(seen, whole):
                assert np.array_equal(seen, reverse_complement_ids(whole))
                flipped += 1
    assert flipped / (3 * len(plain.train_set)) == pytest.approx(0.5, abs=0.05)
    assert same(*[list(data.val_dataloader()[0]) for data in (plain, augmented)])


# Splits and windows


def test_blocks_are_split_eight_one_one_and_never_overlap() -> None:
    data = module("embedded:drosophila4", seqlen=1000, stride=250, block_size=10_000, max_n_fraction=1.0)
    covered = {}
    for name, blocks in (("train", range(8)), ("val", [8]), ("test", [9])):
        windows = starts(getattr(data, f"{name}_set"))
        for _, start, end in windows:
            assert start // 10_000 == (end - 1) // 10_000
            assert start // 10_000 % 10 in blocks
        covered[name] = windows
    # 1,348,131 bases are 134 whole blocks and one of 8,131; in a whole block 37 training windows begin.
    training = [block for block in range(135) if block % 10 < 8]
    dropped = data.train_set.windows.dropped_for_n
    assert len(covered["train"]) + dropped == sum(37 if block < 134 else 29 for block in training)
    assert len(covered["val"]) == len(covered["test"]) == 13 * 10
    whole = module("embedded:drosophila4", seqlen=1000, block_size=10_000, max_n_fraction=1.0)
    assert [s for _, s, _ in starts(whole.val_set)][:3] == [80_000, 81_000, 82_000]


def test_blocks_are_numbered_through_several_genomes(tmp_path: Path) -> None:
    first = write_fasta(tmp_path / "a.fa", a=random_dna(1000), b=random_dna(950, 1))
    second = write_fasta(tmp_path / "b.fa", c=random_dna(2000, 2))
    data = module([first, second], seqlen=50, block_size=200)
    # Blocks: a 0-4, b 5-9 (the last has 150 bases), c 10-19.
    assert {(name, start // 200) for name, start, _ in starts(data.val_set)} == {("b", 3), ("c", 8)}
    assert {(name, start // 200) for name, start, _ in starts(data.test_set)} == {("b", 4), ("c", 9)}
    assert len(data.test_set) == 3 + 4
    sample = data.test_set[3]
    _, start = data.test_set.position(3)
    assert NONE.decode(sample["input_ids"]) == random_dna(2000, 2)[start : start + 50]


def test_chromosomes(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "a.fa", **{f"chr{i}": random_dna(1000, i) for i in range(4)}, tiny="ACGT")
    options: dict[str, Any] = {"split": "chromosome", "val_chromosomes": ["chr1"], "seqlen": 300}
    data = module(fasta, test_chromosomes=["chr3"], **options)
    assert {name for name, _, _ in starts(data.train_set)} == {"chr0", "chr2"}
    assert starts(data.val_set) == [("chr1", 0, 300), ("chr1", 300, 600), ("chr1", 600, 900)]
    assert {name for name, _, _ in starts(data.test_set)} == {"chr3"}
    assert data.train_set.windows.dropped_as_short == 1
    with pytest.raises(UserError, match=r"test_chromosomes: contig 'chrX' is in none of .*a\.fa \(nearest: chr3"):
        module(fasta, test_chromosomes=["chrX"], **options)


def bed_module(tmp_path: Path, rows: str, fasta: str | None = None, **options: Any) -> FastaDataModule:
    if fasta is None:
        fasta = write_fasta(tmp_path / "a.fa", a=random_dna(1000), b=random_dna(150, 1))
    (tmp_path / "a.bed").write_text(rows.replace(" ", "\t"))
    return module(fasta, bed=str(tmp_path / "a.bed"), **({"seqlen": 100} | options))


BED = "a 100 400 train\na 500 550 train\na 0 20 train\na 970 1000 train\nb 60 61 train\na 600 700 valid\nb 0 150 test\n"


def test_bed_intervals_are_cut_or_extended_as_published(tmp_path: Path) -> None:
    data = bed_module(tmp_path, BED)
    assert starts(data.train_set) == [
        ("a", 100, 200),  # longer: the first bases
        ("a", 475, 575),  # shorter: extended on both sides
        ("a", 0, 100),  # moved inside the contig
        ("a", 900, 1000),
        ("b", 11, 111),
    ]
    assert starts(data.val_set) == [("a", 600, 700)]
    assert starts(data.test_set) == [("b", 0, 100)]
    assert NONE.decode(data.train_set[1]["input_ids"]) == random_dna(1000)[475:575]
    tiled = bed_module(tmp_path, BED, long_intervals="tile", stride=80)
    assert starts(tiled.train_set)[:3] == [("a", 100, 200), ("a", 180, 280), ("a", 260, 360)]
    longer = bed_module(tmp_path, BED.replace("b 0 150 test", "a 0 150 test"), seqlen=200)
    assert longer.train_set.windows.dropped_as_short == 1  # contig b has 150 bases
    assert ("a", 425, 625) in starts(longer.train_set)


def test_random_crops_stay_in_the_interval_and_move(tmp_path: Path) -> None:
    data = bed_module(tmp_path, BED, long_intervals="random")
    seen = {data.train_set.position(SampleKey(epoch, 0))[1] for epoch in range(400)}
    assert min(seen) >= 100
    assert max(seen) <= 300
    assert len(seen) > 100
    assert data.train_set.position(SampleKey(5, 1)) == ("a", 475)
    key = SampleKey(7, 0)
    start = data.train_set.position(key)[1]
    assert NONE.decode(data.train_set[key]["input_ids"]) == random_dna(1000)[start : start + 100]
    assert starts(data.test_set) == [("b", 0, 100)]  # evaluation is fixed


def test_random_crops_avoid_n(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "n.fa", a=random_dna(300) + "N" * 5000 + random_dna(200, 1) + "N" * 100)
    rows = "a 0 5600 train\na 0 300 valid\n"
    data = bed_module(tmp_path, rows, fasta, long_intervals="random", max_n_fraction=1.0)
    for epoch in range(60):
        sample = data.train_set[SampleKey(epoch, 0)]
        assert (sample["labels"][:-1] != -100).any()
    with pytest.raises(UserError, match=r"the train split of .* has no window of 100 bases"):
        bed_module(tmp_path, rows, fasta, long_intervals="random", max_n_fraction=0.5)


def test_bed_intervals_split_by_block_never_leave_their_block(tmp_path: Path) -> None:
    rows = "".join(f"a {start} {start + 30}\n" for start in range(0, 960, 7))
    data = bed_module(tmp_path, rows, seqlen=40, split="blocks", block_size=100)
    for name, blocks in (("train", [*range(8), 10, 11]), ("val", [8]), ("test", [9])):
        found = starts(getattr(data, f"{name}_set"))
        assert found
        for _, start, end in found:
            assert start // 100 == (end - 1) // 100
            assert start // 100 in blocks


def test_windows_with_n_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Windows of 100: the first has 49 N, the second 50, the third 51, the fourth 100.
    head = "".join("N" * n + random_dna(100 - n, n) for n in (49, 50, 51, 100))
    fasta = write_fasta(tmp_path / "a.fa", a=head + random_dna(4600))
    with caplog.at_level(logging.INFO):
        data = module(fasta, seqlen=100, block_size=500)
    assert [start for _, start, _ in starts(data.train_set)][:3] == [0, 400, 500]
    assert data.train_set.windows.dropped_for_n == 3
    assert "left out: 3 windows with 0.5 N or more" in caplog.text
    everything = module(fasta, seqlen=100, block_size=500, max_n_fraction=1.0)
    assert [start for _, start, _ in starts(everything.train_set)][:4] == [0, 100, 200, 400]


def test_gap_counts_agree_with_slow_counting() -> None:
    generator = np.random.default_rng(0)
    gap = generator.random(500) < 0.4
    edges = np.flatnonzero(np.diff(gap, prepend=False, append=False))
    gaps = Gaps(edges[0::2], edges[1::2])
    begin = generator.integers(0, 480, 300)
    end = begin + generator.integers(0, 20, 300)
    expected = [int(gap[b:e].sum()) for b, e in zip(begin, end, strict=True)]
    assert gaps.count(begin, end).tolist() == expected
    none = Gaps(edges[:0], edges[:0])
    assert none.count(begin, end).tolist() == [0] * 300


def test_gaps_of_a_contig_do_not_depend_on_the_pieces_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from longscan.genomics.data import genome as genome_module

    text = random_dna(95) + "N" * 30 + "ACG" + "NR" * 20 + "A" + "N" * 11
    fasta = write_fasta(tmp_path / "a.fa", a=text)
    for piece in (1, 10, 95, 1000):
        monkeypatch.setattr(genome_module, "_PIECE", piece)
        gaps = genome_module.Genome([fasta], NONE).gaps(0)
        assert (gaps.start.tolist(), gaps.end.tolist()) == ([95, 128, 169], [125, 168, 180])


# Stages and processes


def test_the_longest_input() -> None:
    """As long as the batches are, in both objectives."""
    for objective, special, tokens in (("causal", "sep", 100), ("causal", "none", 99), ("masked", "sep", 100)):
        data = module(seqlen=100, objective=objective, tokenizer=DNATokenizer(special_tokens=special))  # type: ignore
        data.setup("validate")
        assert data.longest_input() == (tokens, "data.seqlen=100", "lower it by as many")
        assert next(iter(data.val_dataloader()[0]))["input_ids"].shape[1] == tokens


def test_length_warm_up_changes_training_alone() -> None:
    data = module(seqlen=2000, batch_size=4)
    assert data.train_dataloader().loader.batch_size == 4
    data.set_stage(500, 16)
    loader = data.train_dataloader()
    assert next(iter(loader))["input_ids"].shape == (16, 500)
    assert len(data.train_set) == 19 * 20  # 19 whole blocks, and one of 218 bases
    assert next(iter(data.val_dataloader()[0]))["input_ids"].shape == (4, 2000)
    short = {start // 10_000 for _, start, _ in starts(data.train_set)}
    data.set_stage(2000, 4)
    assert {start // 10_000 for _, start, _ in starts(data.train_set)} == short
    with pytest.raises(UserError, match="seqlen=20000 must lie between 2 and block_size=10000"):
        data.set_stage(20_000, 1)


def test_a_dataset_is_small_and_can_be_pickled() -> None:
    data = module("embedded:drosophila4", seqlen=1000, stride=1, block_size=100_000)
    assert len(data.train_set) > 1_000_000
    windows = data.train_set.windows
    assert windows.contig.nbytes + windows.start.nbytes + windows.end.nbytes == 20 * len(data.train_set)
    data.val_set[0]
    copy = pickle.loads(pickle.dumps(data.val_set))
    assert np.array_equal(copy[0]["input_ids"], data.val_set[0]["input_ids"])


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fasta": []}, "fasta: the list is empty"),
        ({"bed": ["a", "b"]}, "bed: 2 files for 1 FASTA files"),
        ({"objective": "mlm"}, "objective='mlm' is not one of 'causal', 'masked'"),
        ({"seqlen": 1}, "seqlen=1 must be at least 2"),
        ({"stride": 0}, "stride=0 must be at least 1"),
        ({"max_n_fraction": 0.0}, r"max_n_fraction=0\.0 must lie in"),
        ({"rc_augment": True, "rc_probability": 1.5}, r"rc_probability=1\.5"),
        ({"split": "column"}, "split='column' needs a BED file"),
        ({"split": "chromosome"}, "needs val_chromosomes"),
        ({"val_chromosomes": ["a"]}, "have no meaning with split='blocks'"),
        ({"split": "chromosome", "val_chromosomes": ["a"], "test_chromosomes": ["a"]}, "contig 'a' is in val_chrom"),
        ({"seqlen": 20_000}, "seqlen=20000 does not fit in block_size=10000"),
        ({"block_size": 100_000}, "the val split of embedded:yeast1 is empty.* at most 23021 here"),
        ({"fasta": ["embedded:yeast1", "nothing.fa"]}, r"nothing\.fa: no such file"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        module(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("a 0 10 train\na 0 10 dev\n", {}, r"a\.bed:2: column 4 is 'dev', expected train, valid or test"),
        ("a 0 10 train\na 0 10\n", {}, r"a\.bed:2: column 4 is missing"),
        ("a 0 10 valid\n", {}, r"the train split of .*a\.bed is empty"),
        ("a 0 2000 train\n", {}, r"a\.bed:1: end 2000 lies beyond a, which has 1000 bases"),
        ("z 0 20 train\n", {}, r"a\.bed:1: contig 'z' is not in the FASTA \(known: a, b\)"),
        ("a 0 20\n", {"split": "chromosome", "val_chromosomes": ["b"]}, "the val split is empty: .* no interval on b"),
        ("a 0 20 train\n", {"seqlen": 5000}, "no window of 5000 bases: 1 region"),
    ],
)
def test_bad_intervals(tmp_path: Path, rows: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        bed_module(tmp_path, rows, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_split_is_an_error_only_where_it_is_needed(tmp_path: Path) -> None:
    data = bed_module(tmp_path, "a 0 200 train\n")
    assert data.val_set is None
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match=r"the test split of .* is empty"):
        data.setup("test")


def test_one_bed_for_two_genomes_with_the_same_contig(tmp_path: Path) -> None:
    fasta = [write_fasta(tmp_path / f"{i}.fa", a=random_dna(1000, i)) for i in range(2)]
    bed = tmp_path / "x.bed"
    bed.write_text("a\t0\t500\ttrain\n")
    with pytest.raises(UserError, match=r"contig 'a' is in .*0\.fa and in .*1\.fa; give one BED file per FASTA"):
        module(fasta, bed=str(bed), seqlen=100)
    data = module(fasta, bed=[str(bed), str(bed)], seqlen=100)
    assert [NONE.decode(data.train_set[i]["input_ids"]) for i in range(2)] == [
        random_dna(1000, i)[:100] for i in range(2)
    ]


def test_a_refused_iupac_code_is_found_at_setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longscan.genomics.data.genome._PIECE", 700)
    fasta = write_fasta(tmp_path / "a.fa", a=random_dna(3000) + "R" + random_dna(1000, 1))
    with pytest.raises(UserError, match=r"a\.fa: record 'a': 'R' at position 3001"):
        module(fasta, tokenizer=DNATokenizer(iupac="error"), seqlen=50, block_size=200)
