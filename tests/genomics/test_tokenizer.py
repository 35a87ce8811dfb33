"""The DNA tokenizer: published settings, policies, padding, reverse complement, speed."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longscan.core.errors import UserError
from longscan.genomics.tokenizer import (
    COMPLEMENT,
    IUPAC_AMBIGUOUS,
    VOCABULARY,
    DNATokenizer,
    reverse_complement,
    reverse_complement_ids,
)


def test_vocabulary_has_the_published_ids() -> None:
    published = {"[CLS]": 0, "[SEP]": 1, "[BOS]": 2, "[MASK]": 3, "[PAD]": 4, "[RESERVED]": 5, "[UNK]": 6}
    published |= {"A": 7, "C": 8, "G": 9, "T": 10, "N": 11}
    assert {symbol: i for i, symbol in enumerate(VOCABULARY)} == published


def test_hyenadna_is_case_sensitive_and_unknown_is_unk() -> None:
    ids = DNATokenizer.hyenadna().encode("ACGTNacgtnRYU-.")
    assert ids.dtype == np.int64
    assert ids.tolist() == [7, 8, 9, 10, 11, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 1]
    assert DNATokenizer.hyenadna("cls_sep").encode("AC").tolist() == [0, 7, 8, 1]
    assert DNATokenizer.hyenadna("none").encode("AC").tolist() == [7, 8]
    assert DNATokenizer.hyenadna().padding_side == "left"


def test_caduceus_upper_cases() -> None:
    assert DNATokenizer.caduceus().encode("ACGTNacgtnRU").tolist() == [7, 8, 9, 10, 11, 7, 8, 9, 10, 11, 6, 6, 1]


def test_policies() -> None:
    encode = lambda text, **policy: DNATokenizer(special_tokens="none", **policy).encode(text).tolist()  # noqa: E731
    assert encode("aRrUu") == [7, 11, 11, 10, 10]
    assert encode(IUPAC_AMBIGUOUS) == [11] * 10
    assert encode("aRrUu", case="keep") == [6, 11, 6, 10, 6]
    assert encode("RU", iupac="unk", uracil="unk") == [6, 6]
    assert encode("A*é😀", other="unk") == [7, 6, 6, 6]
    assert encode(b"ACGT") == [7, 8, 9, 10]
    assert encode("") == []


@pytest.mark.parametrize(
    ("text", "policy", "message"),
    [
        ("ACGE", {}, "'E' at position 4 .* other='unk'"),
        ("ACé", {}, "'é' at position 3"),
        ("AC GT", {}, "' ' at position 3"),
        ("ACRT", {"iupac": "error"}, "'R' at position 3 .* iupac='unk'"),
        ("ACUT", {"uracil": "error"}, "'U' at position 3 .* uracil='unk'"),
    ],
)
def test_refused_characters_are_named(text: str, policy: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DNATokenizer(**policy).encode(text)


def test_batch_is_padded_on_the_left_by_default() -> None:
    batch = DNATokenizer().encode_batch(["ACG", "T"])
    assert batch["input_ids"].tolist() == [[7, 8, 9, 1], [4, 4, 10, 1]]
    assert batch["mask"].tolist() == [[True] * 4, [False, False, True, True]]
    assert batch["input_ids"].dtype == torch.int64
    right = DNATokenizer(padding_side="right", special_tokens="cls_sep").encode_batch(
        ["ACG", "T"], 6, padding="max_length"
    )
    assert right["input_ids"].tolist() == [[0, 7, 8, 9, 1, 4], [0, 10, 1, 4, 4, 4]]
    assert right["mask"].sum(1).tolist() == [5, 3]


def test_truncation_is_explicit_and_keeps_the_special_tokens() -> None:
    with pytest.raises(UserError, match="sequence 2 has 5 characters but max_length=4 leaves room for 3 beside 1"):
        DNATokenizer().encode_batch(["ACG", "ACGTA"], 4)
    batch = DNATokenizer().encode_batch(["ACG", "TGCTA"], 4, truncate=True)
    assert batch["input_ids"].tolist() == [[7, 8, 9, 1], [10, 9, 8, 1]]
    with pytest.raises(UserError, match="max_length=1 has no room"):
        DNATokenizer().encode_batch(["ACG"], 1, truncate=True)
    with pytest.raises(UserError, match="empty list"):
        DNATokenizer().encode_batch([])
    with pytest.raises(UserError, match="sequence 2: 'E' at position 1"):
        DNATokenizer().encode_batch(["A", "E"])


def test_decode() -> None:
    tokenizer = DNATokenizer.hyenadna("cls_sep")
    ids = tokenizer.encode("ACGTN")
    assert tokenizer.decode(ids) == "ACGTN"
    assert tokenizer.decode(torch.from_numpy(ids), skip_special_tokens=False) == "[CLS]ACGTN[SEP]"
    with pytest.raises(UserError, match="id 12 is outside"):
        tokenizer.decode([7, 12])
    with pytest.raises(UserError, match="one row"):
        tokenizer.decode(np.zeros((2, 3), dtype=np.int64))


def test_settings_survive_a_checkpoint() -> None:
    tokenizer = DNATokenizer(case="keep", iupac="error", padding_side="right")
    assert DNATokenizer.from_dict(tokenizer.to_dict()) == tokenizer
    with pytest.raises(UserError, match=r"unknown setting 'cases'.*case"):
        DNATokenizer.from_dict({"cases": "upper"})
    with pytest.raises(UserError, match="case='lower' is not one of 'upper', 'keep'"):
        DNATokenizer.from_dict({"case": "lower"})


def test_complement_table() -> None:
    assert COMPLEMENT == (0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15)


def test_reverse_complement_of_text_agrees_with_biopython() -> None:
    from Bio.Seq import reverse_complement as expected

    text = "ACGTURYSWKMBDHVNacgturyswkmbdhvn-"
    assert reverse_complement(text) == expected(text)
    assert reverse_complement("AACg") == "cGTT"
    with pytest.raises(UserError, match="'E' at position 2 is no nucleotide code"):
        reverse_complement("AEE!")


@settings(max_examples=50, deadline=None)
@given(st.text("ACGTRYSWKMBDHVNacgtryswkmbdhvn-"))
def test_reverse_complement_twice_is_the_identity(text: str) -> None:
    assert reverse_complement(reverse_complement(text)) == text


@settings(max_examples=50, deadline=None)
@given(st.text("ACGTN", max_size=40))
def test_text_and_ids_agree_on_the_reverse_complement(text: str) -> None:
    tokenizer = DNATokenizer(special_tokens="none")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(reverse_complement_ids(ids)) == reverse_complement(text)
    assert np.array_equal(reverse_complement_ids(torch.from_numpy(ids)).numpy(), reverse_complement_ids(ids))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_padding_stays_on_its_side_with_a_mask(side: str, kind: str) -> None:
    texts = ["AACGT", "CC", "T"]
    tokenizer = DNATokenizer(special_tokens="none", padding_side=side)  # type: ignore[arg-type]
    batch = tokenizer.encode_batch(texts)
    expected = tokenizer.encode_batch([reverse_complement(text) for text in texts])["input_ids"]
    ids, mask = batch["input_ids"], batch["mask"]
    before = ids.clone()
    if kind == "numpy":
        assert np.array_equal(reverse_complement_ids(ids.numpy(), mask.numpy()), expected.numpy())
        full = torch.from_numpy(reverse_complement_ids(ids.numpy()))
    else:
        assert torch.equal(reverse_complement_ids(ids, mask), expected)
        full = reverse_complement_ids(ids)
    assert torch.equal(ids, before)
    assert torch.equal(full, torch.tensor(COMPLEMENT)[ids].flip(-1))
    assert full.dtype == torch.int64
    with pytest.raises(UserError, match="mask has shape"):
        reverse_complement_ids(ids, mask[:1])


def test_a_mask_of_nucleotides_leaves_special_tokens_in_place() -> None:
    ids = DNATokenizer.hyenadna("cls_sep").encode_batch(["AAC", "G"])["input_ids"]
    assert reverse_complement_ids(ids, ids >= 7).tolist() == [[0, 9, 10, 10, 1], [4, 4, 0, 8, 1]]


def test_encoding_runs_at_a_hundred_megabases_per_second() -> None:
    text = "ACGTNacgtn" * 100_000
    tokenizer = DNATokenizer()
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        ids = tokenizer.encode(text)
        best = min(best, time.perf_counter() - begin)
    assert len(ids) == 1_000_001
    assert len(text) / best > 1e8
