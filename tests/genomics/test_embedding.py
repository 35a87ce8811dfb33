"""Embeddings of sequences of any length: exact where they can be, and independent of what else is embedded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.genomics.data.fasta import open_fasta
from longscan.genomics.data.items import ArraySequence, SequenceReader, record_items
from longscan.genomics.embedding import Embedder, Pooling
from longscan.genomics.inference import DNAModel, Strand, prepare
from longscan.genomics.reading import plan_reading
from longscan.genomics.tokenizer import reverse_complement_ids

STRANDS: tuple[Strand, ...] = ("forward", "reverse", "both")
POOLINGS: tuple[Pooling, ...] = ("mean", "max", "last")


def build(name: str = "caduceus_ph_1k_d118", **options: Any) -> DNAModel:
    torch.manual_seed(1)
    return prepare(longscan.create_model(name, **{"d_model": 16, "n_layer": 2, **options}), name)


@pytest.fixture(scope="module")
def causal() -> DNAModel:
    return build(bidirectional=False)


@pytest.fixture(scope="module")
def hyena() -> DNAModel:
    return build("hyenadna_tiny_1k", max_length=130)


@pytest.fixture(scope="module")
def fly() -> np.ndarray:
    """40 kb of real DNA as ids."""
    fasta = open_fasta("embedded:drosophila4")
    return record_items(SequenceReader(fasta, build().tokenizer))[0].symbols(100_000, 140_000).copy()


def dna(length: int, seed: int = 0) -> ArraySequence:
    return ArraySequence(np.random.default_rng(seed).integers(7, 11, length).astype(np.uint8))


def pooled(model: DNAModel, sequences: list[Any], pooling: Pooling = "mean", **options: Any) -> np.ndarray:
    reading = plan_reading(model, max(s.length for s in sequences), **options)
    return np.stack(list(Embedder(model, reading).pooled(sequences, pooling)))


def tokens(model: DNAModel, sequence: Any, **options: Any) -> np.ndarray:
    embedder = Embedder(model, plan_reading(model, sequence.length, **options))
    (pieces,) = embedder.tokens([sequence])
    return np.concatenate(list(pieces))


def direct(model: DNAModel, ids: np.ndarray, strand: Strand, pooling: Pooling) -> np.ndarray:
    """Pooled features by one forward pass, written out."""
    forward = model.features(ids[None], "forward")[0].double().numpy()
    reverse = model.features(ids[None], "reverse")[0].double().numpy()
    values = {
        "mean": (forward.mean(0), reverse.mean(0)),
        "max": (forward.max(0), reverse.max(0)),
        "last": (forward[-1], reverse[0]),
    }[pooling]
    return {"forward": values[0], "reverse": values[1], "both": (values[0] + values[1]) / 2}[strand]


@pytest.mark.parametrize("strand", STRANDS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["causal", "ph", "ps", "hyena"])
def test_one_pass_equals_a_forward_pass(kind: str, pooling: Pooling, strand: Strand) -> None:
    model = {
        "causal": lambda: build(bidirectional=False),
        "ph": build,
        "ps": lambda: build("caduceus_ps_1k_d118"),
        "hyena": lambda: build("hyenadna_tiny_1k", max_length=130),
    }[kind]()
    sequence = dna(101)
    found = pooled(model, [sequence], pooling, strand=strand)
    assert found.shape == (1, 16)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], direct(model, sequence.ids, strand, pooling), atol=1e-6)


@pytest.mark.parametrize("strand", STRANDS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_carried_state_equals_one_pass(causal: DNAModel, pooling: Pooling, strand: Strand) -> None:
    sequence = dna(1000)
    found = pooled(causal, [sequence], pooling, strand=strand, window=77)
    np.testing.assert_allclose(found[0], direct(causal, sequence.ids, strand, pooling), atol=2e-6)


@pytest.mark.parametrize("strand", STRANDS)
def test_windows_agree_with_the_carried_state_on_real_dna(causal: DNAModel, fly: np.ndarray, strand: Strand) -> None:
    """With the default context every pooling agrees to 1e-4, and so does every single base."""
    sequence = ArraySequence(fly)
    for pooling in POOLINGS:
        carried = pooled(causal, [sequence], pooling, strand=strand)
        windows = pooled(causal, [sequence], pooling, strand=strand, carry=False)
        assert np.abs(carried - windows).max() < 1e-4
    each = [tokens(causal, sequence, carry=carry) for carry in (True, False)]
    assert each[0].shape == (40_000, 16)
    assert np.abs(each[0] - each[1]).max() < 1e-4
    short = tokens(causal, sequence, window=10_000, context=16)
    assert np.abs(each[0] - short).max() > 1e-3  # the context is what does it


def test_windows_of_a_model_that_reads_both_ends(fly: np.ndarray) -> None:
    """Where the context covers what a model sees, its windows are exact; positions stay where they belong."""
    model = prepare(
        longscan.create_model(
            "LanguageModel", vocab_size=12, backbone={"d_model": 16, "layers": [
                {"name": "attention", "window": 9, "causal": False, "n_heads": 2}
            ]},
        ), "local",
    )  # fmt: skip
    assert not model.causal
    sequence = ArraySequence(fly[:700])
    for strand in STRANDS:
        whole = model.features(sequence.ids[None], strand)[0].numpy()
        for window, context in ((100, 9), (64, 20), (699, 9)):
            found = tokens(model, sequence, strand=strand, window=window, context=context)
            np.testing.assert_allclose(found, whole, atol=1e-5)


def test_windows_have_one_length_and_cover_every_base_once(causal: DNAModel) -> None:
    for strand, window, context in (("forward", 50, 20), ("reverse", 50, 20), ("both", 50, 20), ("both", 50, 0)):
        reading = plan_reading(causal, 331, strand=strand, window=window, context=context)  # type: ignore[arg-type]
        spans = list(reading.spans(331))
        assert [span.start for span in spans[1:]] == [span.end for span in spans[:-1]]
        assert (spans[0].start, spans[-1].end) == (0, 331)
        for start, end, read in spans:
            assert 0 <= read <= 331 - window
            assert start - read >= min(reading.left, start)
            assert read + window - end >= min(reading.right, 331 - end)
        passes = 2 if strand == "both" else 1
        assert reading.work(331) == (passes * len(spans), passes * len(spans) * window)


@pytest.mark.parametrize("name", ["caduceus_ph_1k_d118", "caduceus_ps_1k_d118"])
def test_a_result_does_not_depend_on_its_neighbours(name: str) -> None:
    model = build(name)
    lengths = [40, 7, 40, 300, 40, 1, 41, 300, 40, 40, 7]
    sequences = [dna(length, seed) for seed, length in enumerate(lengths)]
    together = pooled(model, sequences, strand="both", batch_size=3, window=200, context=50)
    for sequence, row in zip(sequences, together, strict=True):
        alone = pooled(model, [sequence], strand="both", window=200, context=50)[0]
        assert np.abs(alone - row).max() < 1e-5


def test_batches_are_full_of_one_length(causal: DNAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    ask = DNAModel.strand_features
    monkeypatch.setattr(DNAModel, "strand_features", lambda self, ids, s: shapes.append(ids.shape) or ask(self, ids, s))
    pooled(causal, [dna(10 + i % 2, i) for i in range(12)], batch_size=4)
    assert sorted(shapes) == [(2, 10), (2, 11), (4, 10), (4, 11)]


def test_the_largest_batch_does_not_grow_with_the_record(causal: DNAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, read = [], []
    ask, carry = DNAModel.strand_features, DNAModel.next_features
    monkeypatch.setattr(DNAModel, "strand_features", lambda self, ids, s: sizes.append(ids.size) or ask(self, ids, s))
    monkeypatch.setattr(
        DNAModel, "next_features", lambda self, ids, s=None: sizes.append(ids.size) or carry(self, ids, s)
    )

    class Recorded(ArraySequence):
        def symbols(self, start: int, end: int) -> np.ndarray:
            read.append(end - start)
            return super().symbols(start, end)

    for carried in (True, False):
        for length in (2000, 8000):
            sizes.clear()
            pooled(causal, [Recorded(dna(length).ids)], strand="both", window=256, carry=carried, batch_size=2)
            assert max(sizes) == (256 if carried else 512)
    assert max(read) == 256


def test_both_strands_make_an_embedding_that_does_not_depend_on_the_strand(causal: DNAModel) -> None:
    for model in (causal, build("caduceus_ps_1k_d118")):
        for pooling in POOLINGS:
            sequence = dna(500)
            other = ArraySequence(reverse_complement_ids(sequence.ids))
            options: dict[str, Any] = {"strand": "both", "window": 200}
            difference = pooled(model, [sequence], pooling, **options) - pooled(model, [other], pooling, **options)
            limit = 2e-6 if model is causal else 0.05  # windows do not tile both strands alike
            assert np.abs(difference).max() < limit


def test_what_carries(causal: DNAModel, hyena: DNAModel) -> None:
    def hybrid(**options: Any) -> DNAModel:
        layers = ["mamba", {"name": "attention", **options}]
        return prepare(
            longscan.create_model("LanguageModel", vocab_size=12, backbone={"d_model": 16, "layers": layers}), "h"
        )

    assert causal.carries
    assert hybrid(window=32).carries
    assert not hybrid().carries  # its state grows
    assert not hyena.carries
    one_way_ps = build("caduceus_ps_1k_d118", bidirectional=False)
    assert not one_way_ps.causal  # its other half reads the other strand


def test_defaults(causal: DNAModel, hyena: DNAModel) -> None:
    reading = plan_reading(causal, 10**6)
    assert (reading.carry, reading.window, reading.left, reading.right) == (True, 8192, 0, 0)
    reading = plan_reading(causal, 10**6, carry=False, strand="both")
    assert (reading.carry, reading.window, reading.left, reading.right) == (False, 32768, 8192, 8192)
    reading = plan_reading(build(), 10**6)
    assert (reading.carry, reading.window, reading.left, reading.right) == (False, 32768, 4096, 4096)
    reading = plan_reading(hyena, 500, window=128)
    assert (reading.carry, reading.window, reading.left, reading.right) == (False, 128, 32, 0)
    assert plan_reading(hyena, 130).window == 130


@pytest.mark.parametrize(
    ("kind", "longest", "options", "message"),
    [
        ("causal", 10, {"window": 0}, "--window 0: must be at least 1"),
        ("causal", 10, {"carry": True, "context": 5}, "--carry and --context exclude each other"),
        ("causal", 10, {"window": 100, "context": 100}, "--context 100: .* on 1 side"),
        ("causal", 10, {"window": 100, "context": 50, "strand": "both"}, "--context 50: .* on 2 side"),
        ("causal", 10, {"context": -1}, "--context -1: must be at least 0"),
        ("ph", 10, {"carry": True}, "--carry: caduceus_ph_1k_d118 reads from both ends"),
        ("hyena", 131, {}, r"131 bases is longer than hyenadna_tiny_1k takes \(130\); give --window 130"),
        ("hyena", 131, {"carry": True, "window": 100}, "longer than hyenadna_tiny_1k takes"),
        ("hyena", 10, {"window": 131}, "--window 131: 131 bases are more than"),
    ],
)  # fmt: skip
def test_bad_readings(kind: str, longest: int, options: dict[str, Any], message: str) -> None:
    model = {
        "causal": lambda: build(bidirectional=False),
        "ph": build,
        "hyena": lambda: build("hyenadna_tiny_1k", max_length=130),
    }[kind]()
    with pytest.raises(UserError, match=message) as caught:
        plan_reading(model, longest, **options)
    assert "\n" not in str(caught.value)


def test_hyena_carries_up_to_its_limit(hyena: DNAModel) -> None:
    sequence = dna(130)
    found = pooled(hyena, [sequence], strand="both", window=50, carry=True)
    np.testing.assert_allclose(found[0], direct(hyena, sequence.ids, "both", "mean"), atol=1e-5)


def test_each_base_of_the_reverse_strand_cannot_be_streamed(causal: DNAModel) -> None:
    with pytest.raises(UserError, match=r"--pooling none with --strand both: .*--no-carry"):
        tokens(causal, dna(50), strand="both")
