"""The baselines that models are held against: counted naively, computed by hand, and worth beating."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from longscan.genomics.baselines import kmer_frequencies, kmer_logistic_regression, markov_perplexity
from longscan.genomics.data import SequenceTableDataModule
from longscan.genomics.tokenizer import A


def bases(text: str) -> np.ndarray:
    return np.array(["ACGT".find(letter) for letter in text])


@pytest.mark.parametrize("k_max", [1, 3, 4])
def test_kmer_frequencies_are_those_of_a_naive_count(k_max: int) -> None:
    """Also with N inside, at lengths below k, and where no k-mer is whole."""
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("ACGTN"), size=n, p=[0.3, 0.2, 0.2, 0.2, 0.1])) for n in (1, 2, 3, 50, 200)]
    texts += ["NNNN", "ACGT", "ANCNGNT", "AAAAAA"]
    found = kmer_frequencies([bases(text) for text in texts], k_max)
    for row, text in zip(found, texts, strict=True):
        wanted: list[float] = []
        for k in range(1, k_max + 1):
            whole = [text[i : i + k] for i in range(len(text) - k + 1) if "N" not in text[i : i + k]]
            kmers = ["".join(letters) for letters in itertools.product("ACGT", repeat=k)]
            wanted += [whole.count(kmer) / max(1, len(whole)) for kmer in kmers]
        np.testing.assert_allclose(row, wanted, rtol=1e-6)
    assert found.dtype == np.float32


def test_markov_perplexity_by_hand() -> None:
    """Add-one smoothing, contexts of the order asked for, nothing counted across an N or between sequences."""
    train, test = [bases("AACA"), bases("NAG")], [bases("AC"), bases("GNA")]
    # Order 0: A 4, C 1, G 1, T 0 in training, each plus one of 10; the test has A, C, G, A.
    logs = [math.log(count / 10) for count in (5, 2, 2, 5)]
    assert markov_perplexity(train, test, 0) == pytest.approx(math.exp(-sum(logs) / 4), rel=1e-12)
    # Order 1: after A come A, C and G once each; so P(C | A) = 2 / 7. The test has one pair, AC.
    assert markov_perplexity(train, test, 1) == pytest.approx(7 / 2, rel=1e-12)
    # Order 2: after AA comes C; the test AAC, ACG has P(C | AA) = 2 / 5 and P(G | AC) = 1 / 5 (ACA was seen).
    assert markov_perplexity(train, [bases("AACG")], 2) == pytest.approx(math.sqrt(5 / 2 * 5), rel=1e-12)


def test_markov_perplexity_of_a_chain() -> None:
    """A long sample of a known chain has the perplexity of its entropy rate; order 0 sees only the composition."""
    generator = np.random.default_rng(0)
    turns = generator.random(200_001) < 0.1  # mostly the next base in the order A, C, G, T, sometimes the one after it
    chain = np.cumsum(np.where(turns, 2, 1)) % 4
    entropy = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert markov_perplexity([chain], [chain], 1) == pytest.approx(math.exp(entropy), rel=0.01)
    assert markov_perplexity([chain], [chain], 0) == pytest.approx(4, rel=0.001)


def test_logistic_regression_on_packaged_dna() -> None:
    """Coding against intergenic, 2,000 rows: more than nine in ten; with shuffled labels, no better than chance."""
    module = SequenceTableDataModule("coding_vs_intergenic_200", limit_train=2000)
    module.setup("fit")
    module.setup("test")

    def sample(dataset: object, rows: int) -> tuple[list[np.ndarray], np.ndarray]:
        sequences = [dataset.table[i].astype(np.int64) - A for i in range(rows)]  # type: ignore[attr-defined]
        return [np.where(s < 4, s, -1) for s in sequences], dataset.targets[:rows]  # type: ignore[attr-defined]

    train, labels = sample(module.train_set, 2000)
    val, val_labels = sample(module.val_set, 500)
    test, truth = sample(module.test_set["test"], 1000)
    accuracy = (kmer_logistic_regression(train, labels, val, val_labels, test) == truth).mean()
    shuffled = np.random.default_rng(0).permutation(labels)
    chance = (kmer_logistic_regression(train, shuffled, val, val_labels, test, strengths=(0.01,)) == truth).mean()
    print(f"k-mer logistic regression on 2,000 rows: accuracy {accuracy:.3f}, with shuffled labels {chance:.3f}")
    assert accuracy > 0.9
    assert 0.4 < chance < 0.6
