"""Masked, mutated and frame-broken training sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey
from longscan.genomics.data.augmentation import SequenceAugmentation
from longscan.genomics.data.classification import SequenceTableDataModule
from longscan.genomics.data.reading_frames import LONGEST_OPEN, broken_frames, longest_open_stretch
from longscan.genomics.tokenizer import MASK, A, DNATokenizer, N, T

TOKENIZER = DNATokenizer(special_tokens="none")


def random_ids(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(A, T + 1, size=length).astype(np.uint8)


def open_frame(seed: int, codons: int) -> np.ndarray:
    """A sequence whose forward frame 0 has no stop codon."""
    generator = np.random.default_rng(seed)
    chosen = [c for c in (generator.choice(list("ACGT"), 3) for _ in range(4 * codons)) if "".join(c) not in STOPS]
    return TOKENIZER.encode_symbols("".join("".join(codon) for codon in chosen[:codons]))


STOPS = ("TAA", "TAG", "TGA")


def test_longest_open_stretch_against_text() -> None:
    complement = str.maketrans("ACGT", "TGCA")
    for seed in range(20):
        text = "".join(np.random.default_rng(seed).choice(list("ACGT"), 187))
        symbols = TOKENIZER.encode_symbols(text)
        for offset in range(3):
            codons = [text[i : i + 3] for i in range(offset, len(text) - 2, 3)]
            for strand, read in ((0, codons), (1, [codon[::-1].translate(complement) for codon in codons])):
                marks = "".join("x" if codon in STOPS else "." for codon in read)
                longest = max(marks.split("x"), key=len)
                first, length = longest_open_stretch(symbols, strand, offset)
                assert length == len(longest)
                assert marks[first : first + length] == longest


def test_broken_frames_have_no_long_open_stretch() -> None:
    changed = []
    for seed in range(50):
        symbols = open_frame(seed, 100)
        assert longest_open_stretch(symbols, 0, 0) == (0, 100)
        decoy = broken_frames(symbols, np.random.default_rng(seed))
        assert decoy.shape == symbols.shape
        assert decoy.dtype == symbols.dtype
        assert (
            max(longest_open_stretch(decoy, strand, offset)[1] for strand in (0, 1) for offset in range(3))
            <= LONGEST_OPEN
        )
        changed.append((decoy != symbols).mean())
    assert min(changed) > 0
    # Half of them only have stop codons put in, which changes few bases.
    assert 0.3 < np.mean(np.array(changed) < 0.1) < 0.7
    short = random_ids(0, 3 * LONGEST_OPEN - 30)
    generator = np.random.default_rng(1)  # its first number is above 0.5: no shift
    np.testing.assert_array_equal(broken_frames(short, generator), short)


def test_masked_and_mutated_shares() -> None:
    symbols = random_ids(3, 100_000)
    symbols[:100] = N
    changed = SequenceAugmentation(masked=0.2, mutated=0.1)(symbols, np.random.default_rng(0))
    assert (changed[:100] == N).all()
    assert (changed == MASK).mean() == pytest.approx(0.2, abs=0.005)
    mutated = (changed != symbols) & (changed != MASK)
    assert mutated.mean() == pytest.approx(0.1, abs=0.005)
    assert set(changed[mutated].tolist()) == set(range(A, T + 1))
    assert SequenceAugmentation()(symbols, np.random.default_rng(0)) is symbols


def test_decoys_are_added_and_nothing_else_changes(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(
        "sequence\tlabel\n"
        + "".join(f"{TOKENIZER.decode(open_frame(s, 60))}\t{'coding' if s % 2 else 'intergenic'}\n" for s in range(200))
    )
    data = SequenceTableDataModule(
        folder=str(tmp_path),
        tokenizer=TOKENIZER,
        augmentation=SequenceAugmentation(broken_frames=0.4),
        val_fraction=0.2,
    )
    data.setup("fit")
    assert data.train_set is not None
    data_set, records = data.train_set, len(data.train_set.table)
    coding, intergenic = (data.class_names.index(name) for name in ("coding", "intergenic"))
    assert len(data_set) == records + round(0.4 * (data_set.targets == coding).sum())
    for index in range(records):
        sample = data_set[SampleKey(1, index)]
        assert sample["label"] == data_set.targets[index]
        np.testing.assert_array_equal(sample["symbols"], data_set.table[index])
    for index in range(records, len(data_set)):
        sample, again, later = (data_set[SampleKey(epoch, index)] for epoch in (1, 1, 2))
        np.testing.assert_array_equal(sample["symbols"], again["symbols"])
        assert not np.array_equal(sample["symbols"], later["symbols"])
        assert sample["label"] == intergenic
        assert longest_open_stretch(sample["symbols"], 0, 0)[1] <= LONGEST_OPEN
    assert data.val_set[0]["label"] == data.val_set.targets[0]


def test_bad_settings() -> None:
    with pytest.raises(UserError, match=r"augmentation.masked=1.5 must be at least 0 and below 1"):
        SequenceAugmentation(masked=1.5)
    with pytest.raises(UserError, match=r"augmentation.broken_frames=-0.1 must not be negative"):
        SequenceAugmentation(broken_frames=-0.1)
    with pytest.raises(UserError, match="add up to less than 1"):
        SequenceAugmentation(masked=0.6, mutated=0.5)
    data = SequenceTableDataModule(dataset="splice_sites_200", augmentation=SequenceAugmentation(broken_frames=0.1))
    with pytest.raises(UserError, match=r"augmentation.coding='coding' is no class of the data"):
        data.setup("fit")
