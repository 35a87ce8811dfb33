"""Windows and scores of variants, against a loop over strings written here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from variant_fixtures import other, small_genome

import longscan
from longscan.core.errors import UserError
from longscan.genomics.data.fasta import FastaReader, open_fasta
from longscan.genomics.data.variants import Variant
from longscan.genomics.inference import DNAModel, prepare
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement
from longscan.genomics.variants.alleles import STATUSES, encode_bases, unusable
from longscan.genomics.variants.scores import VariantScorer
from longscan.genomics.variants.windows import ContextReader, alternative_windows

IDS = dict(zip("ACGTN", range(7, 12), strict=True))
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "ps": ("caduceus_ps_1k_d118", {}),
    "ph": ("caduceus_ph_1k_d118", {}),
    "hyena": ("hyenadna_tiny_1k", {"max_length": 130}),
    "mamba": ("caduceus_ph_1k_d118", {"bidirectional": False}),
}


def tiny(kind: str, **more: Any) -> DNAModel:
    name, options = TINY[kind]
    model: Any = longscan.create_model(name, d_model=16, n_layer=2, **options, **more)
    with torch.no_grad():  # initial weights hardly look at their context
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3.0)
    return prepare(model, kind)


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], FastaReader]:
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    return small_genome(path), open_fasta(path)


def naive_windows(sequence: str, pos: int, ref: str, alt: str, window: int) -> tuple[str, str]:
    """Return both windows, from one changed sequence between endless N."""
    padding = "N" * (2 * window)
    start = pos - 1 - window // 2 + len(padding)
    changed = sequence[: pos - 1] + alt + sequence[pos - 1 + len(ref) :]
    return tuple((padding + s + padding)[start : start + window] for s in (sequence, changed))  # type: ignore[return-value]


def naive_log_p(model: DNAModel, text: list[int], position: int) -> np.ndarray:
    """Return log p of A, C, G, T at a position of one sequence."""
    with torch.no_grad():
        logits = model.model(torch.tensor([text]))[0, position, 7:11].double().numpy()
    return logits - np.log(np.exp(logits).sum())


def naive_marginals(model: DNAModel, ref: str, alt: str, masked: bool = True) -> float:
    """Σ over differing positions, all masked or none, of log p(alt) − log p(ref)."""
    differing = [i for i in range(len(ref)) if ref[i] != alt[i]]
    ids = [3 if masked and i in differing else IDS[base] for i, base in enumerate(ref)]
    total = 0.0
    for i in differing:
        log_p = naive_log_p(model, ids, i)
        total += log_p["ACGT".index(alt[i])] - log_p["ACGT".index(ref[i])]
    return total


def naive_sums(model: DNAModel, ref: str, alt: str, reverse: bool) -> float:
    """The difference of summed log p over the bases that count, the windows given on the forward strand."""
    first = 1 if model.causal else 0
    counted = []
    for text in (ref, alt):
        places = [i for i, base in enumerate(text) if base != "N"]
        unseen = (len(text) - 1 if reverse else 0) if model.causal else None
        counted.append([i for i in places if i != unseen])
    most = min(map(len, counted))
    sums = []
    for text, places in zip((ref, alt), counted, strict=True):
        read = reverse_complement(text) if reverse else text
        ids, total = [IDS[base] for base in read], 0.0
        for i in places[:most]:
            t = len(text) - 1 - i if reverse else i
            total += naive_log_p(model, ids, t - first)["ACGT".index(read[t])]
        sums.append(total)
    return sums[1] - sums[0]


def variants_of(sequence: str) -> list[Variant]:
    """SNVs at both ends and inside, one site with two ALTs, two MNVs that begin alike, indels also near the ends."""

    def variant(pos: int, length: int, alt: str) -> Variant:
        return Variant("c1", pos, sequence[pos - 1 : pos - 1 + length], alt)

    def base(pos: int, step: int = 1) -> str:
        return other(sequence[pos - 1], step)

    return [
        variant(1, 1, base(1)),
        variant(5, 3, sequence[4]),
        variant(50, 1, base(50)),
        variant(50, 1, base(50, 2)),
        variant(120, 4, base(120) + sequence[120:122] + base(123)),
        variant(120, 4, base(120) + sequence[120] + base(122) + sequence[122]),
        variant(150, 1, sequence[149] + "GATTA"),
        variant(150, 6, sequence[149]),
        variant(290, 1, sequence[289] + "CCC"),
        variant(291, 5, sequence[290]),
        variant(300, 1, base(300)),
    ]


@pytest.mark.parametrize("kind", list(TINY))
def test_scores_equal_a_naive_loop(kind: str, genome: tuple[dict[str, str], FastaReader]) -> None:
    sequences, fasta = genome
    model, variants = tiny(kind), variants_of(sequences["c1"])
    found = VariantScorer(model, fasta, window=32, batch_size=4, max_n=1.0, trust_equivariance=False).score(variants)
    assert found.status == ["scored"] * len(variants)
    for i, v in enumerate(variants):
        ref, alt = naive_windows(sequences["c1"], v.pos, v.ref, v.alt, 32)
        if not model.causal and len(v.ref) == len(v.alt):
            expected = (naive_marginals(model, ref, alt), naive_marginals(model, *map(reverse_complement, (ref, alt))))
            assert found.method[i] == "masked"
        else:
            expected = (naive_sums(model, ref, alt, False), naive_sums(model, ref, alt, True))
            assert found.method[i] == ("causal" if model.causal else "unmasked_sum")
        assert abs(expected[0]) > 1e-3
        assert (found.forward[i], found.reverse[i]) == pytest.approx(expected, abs=2e-5)
        assert found.score[i] == pytest.approx(sum(expected) / 2, abs=2e-5)
        assert found.n_bases[i] == ref.count("N")


@pytest.mark.parametrize("kind", ["ps", "ph"])
def test_with_ref_in_sight(kind: str, genome: tuple[dict[str, str], FastaReader]) -> None:
    sequences, fasta = genome
    model, variants = tiny(kind), variants_of(sequences["c1"])
    options: dict[str, Any] = {"window": 32, "batch_size": 4, "max_n": 1.0, "trust_equivariance": False}
    found = VariantScorer(model, fasta, masked=False, **options).score(variants)
    hidden = VariantScorer(model, fasta, **options).score(variants)
    for i, v in enumerate(variants):
        if len(v.ref) != len(v.alt):
            assert (found.method[i], found.score[i]) == ("unmasked_sum", hidden.score[i])
            continue
        assert found.method[i] == "unmasked"
        ref, alt = naive_windows(sequences["c1"], v.pos, v.ref, v.alt, 32)
        expected = [
            naive_marginals(model, *pair, masked=False) for pair in ((ref, alt), map(reverse_complement, (ref, alt)))
        ]
        assert (found.forward[i], found.reverse[i]) == pytest.approx(tuple(expected), abs=2e-5)
    assert np.abs(found.score - hidden.score).max() > 1e-2
    with pytest.raises(UserError, match="--unmasked: is for masked language models, which mamba is not"):
        VariantScorer(tiny("mamba"), fasta, masked=False)


def test_a_snv_by_hand(genome: tuple[dict[str, str], FastaReader]) -> None:
    """Window 8 around c1:50: mask index 4, the softmax is over four letters, and nothing else enters."""
    sequences, fasta = genome
    model, sequence = tiny("ph"), sequences["c1"]
    ids = [IDS[base] for base in sequence[45:53]]
    ids[4] = 3
    with torch.no_grad():
        logits = model.model(torch.tensor([ids]))[0, 4]
    ref, alt = sequence[49], other(sequence[49])
    scorer = VariantScorer(model, fasta, window=8, strand="forward")
    found = scorer.score([Variant("c1", 50, ref, alt)])
    assert found.score[0] == pytest.approx(float(logits[IDS[alt]] - logits[IDS[ref]]), abs=1e-6)
    assert np.isnan(found.reverse[0])


def test_both_strands_of_an_equivariant_model_agree(genome: tuple[dict[str, str], FastaReader]) -> None:
    sequences, fasta = genome
    model, variants = tiny("ps"), variants_of(sequences["c1"])
    computed = VariantScorer(model, fasta, window=64, max_n=1.0, trust_equivariance=False).score(variants)
    np.testing.assert_allclose(computed.forward, computed.reverse, atol=1e-4)
    assert (computed.forward != computed.reverse).any()  # really computed twice
    for strand in ("forward", "reverse", "both"):
        taken = VariantScorer(model, fasta, window=64, max_n=1.0, strand=strand).score(variants)
        np.testing.assert_allclose(taken.score, computed.score, atol=1e-4)
        assert np.isnan(taken.forward).all() == (strand == "reverse")
        assert np.isnan(taken.reverse).all() == (strand == "forward")
    other_model = VariantScorer(tiny("ph"), fasta, window=64, max_n=1.0).score(variants)
    assert np.abs(other_model.forward - other_model.reverse).max() > 1e-2  # not so for a model that is not


@pytest.mark.parametrize("kind", list(TINY))
def test_batch_size_and_neighbours_change_nothing(kind: str, genome: tuple[dict[str, str], FastaReader]) -> None:
    sequences, fasta = genome
    model, variants = tiny(kind), variants_of(sequences["c1"])

    def score(batch_size: int) -> VariantScorer:
        return VariantScorer(model, fasta, window=64, max_n=1.0, batch_size=batch_size, distance="both")

    one, many = score(1).score(variants), score(32).score(variants)
    for name in ("score", "forward", "reverse", "cosine", "l2"):
        np.testing.assert_allclose(getattr(one, name), getattr(many, name), atol=1e-5)
        alone = [getattr(score(3).score([variant]), name)[0] for variant in variants]
        np.testing.assert_allclose(getattr(one, name), alone, atol=1e-5)


def test_alternatives_of_one_site_share_their_pass(
    genome: tuple[dict[str, str], FastaReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences, fasta = genome
    seen: list[int] = []
    for kind, passes in (("ph", 2), ("hyena", 6)):
        model = tiny(kind)
        forward = type(model.model).forward_features
        monkeypatch.setattr(
            type(model.model), "forward_features",
            lambda self, ids, forward=forward, **kw: (seen.append(len(ids)), forward(self, ids, **kw))[1],
        )  # fmt: skip
        sites = [(50, 1), (50, 2), (50, 3), (90, 1)]
        variants = [Variant("c1", p, sequences["c1"][p - 1], other(sequences["c1"][p - 1], k)) for p, k in sites]
        seen.clear()
        VariantScorer(model, fasta, window=32, strand="forward").score(variants)
        assert sum(seen) == passes  # masked: one for each site; causal: one for each site and each ALT


def test_windows_by_hand() -> None:
    """Window 8, centre 4: x x x x | REF …; the ALT's window has the same left half and the same length."""
    context = np.frombuffer(b"abcdEFGHijklmn", dtype=np.uint8)[None]

    def window(ref: bytes, alt: bytes) -> bytes:
        pair = [[np.frombuffer(allele, dtype=np.uint8)] for allele in (ref, alt)]
        (row,) = alternative_windows(context, *pair, 8)
        return row.tobytes()

    assert window(b"E", b"x") == b"abcdxFGH"
    assert window(b"EF", b"xy") == b"abcdxyGH"
    assert window(b"E", b"Exy") == b"abcdExyF"
    assert window(b"EFG", b"E") == b"abcdEHij"
    assert window(b"EFGH", b"E") == b"abcdEijk"
    assert window(b"E", b"Exyz") == b"abcdExyz"
    assert window(b"EF", b"xyz") == b"abcdxyzG"


def test_contexts_pad_with_n_and_come_in_the_order_asked(genome: tuple[dict[str, str], FastaReader]) -> None:
    sequences, fasta = genome
    contigs, starts = ["c2", "c1", "c1", "c3", "c1"], np.array([55, -3, 296, 88, 100])
    rows = ContextReader(fasta, DNATokenizer.hyenadna()).read(contigs, starts, 8)
    padded = {name: "N" * 8 + bases + "N" * 8 for name, bases in sequences.items()}
    expected = [[IDS[b] for b in padded[c][s + 8 : s + 16]] for c, s in zip(contigs, starts, strict=True)]
    assert rows.tolist() == expected  # lower case is read as upper case, even by a tokenizer that keeps case


def test_distant_sites_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    fasta = open_fasta("embedded:drosophila4")
    (name,) = fasta.names
    sizes: list[int] = []
    fetch = FastaReader.fetch

    def spy(self: FastaReader, name: str, start: int, end: int, **options: bool) -> str:
        sizes.append(end - start)
        return fetch(self, name, start, end, **options)

    monkeypatch.setattr(FastaReader, "fetch", spy)
    starts = np.array([1_000_000, 5, 100_000, 100_050, 1_300_000])
    rows = ContextReader(fasta, DNATokenizer()).read([name] * 5, starts, 20)
    assert sorted(sizes) == [20, 20, 20, 70]
    text = fetch(fasta, name, 0, fasta.lengths[name]).upper()
    assert rows.tolist() == [[IDS[base] for base in text[s : s + 20]] for s in starts]


@pytest.mark.parametrize(
    "ref, alt, status",
    [
        ("A", ".", "missing"), ("A", "*", "star"), ("A", "<DEL>", "symbolic"), ("A", "<*>", "symbolic"),
        ("A", "A[c1:5[", "breakend"), ("A", "]c1:5]A", "breakend"), ("A", "A.", "breakend"), ("A", ".A", "breakend"),
        ("A", "a", "identical"), ("A", "C", None), ("AC", "A", None), ("A", "R", None),
    ],
)  # fmt: skip
def test_alternatives_that_stand_for_no_sequence(ref: str, alt: str, status: str | None) -> None:
    assert unusable(ref, alt) == status
    assert status is None or status in STATUSES


def test_every_reason_to_skip(genome: tuple[dict[str, str], FastaReader]) -> None:
    sequences, fasta = genome
    c1, c2 = sequences["c1"], sequences["c2"]
    base, alt = c1[99], other(c1[99])
    rows = [
        (Variant("c1", 100, base, alt), "scored"),
        (Variant("c1", 100, base.lower(), alt.lower()), "scored"),
        (Variant("c1", 100, alt, base), "ref_mismatch"),
        (Variant("c1", 300, c1[299] + "A", c1[299]), "ref_mismatch"),  # REF reaches beyond the contig
        (Variant("c1", 100, base, "R"), "ambiguous"),
        (Variant("c1", 100, "N", "A"), "ambiguous"),
        (Variant("c1", 100, base, base), "identical"),
        (Variant("c1", 100, base, "<DUP>"), "symbolic"),
        (Variant("c1", 100, base, "*"), "star"),
        (Variant("c1", 100, base, "."), "missing"),
        (Variant("c1", 100, base, f"{base}]c2:1]"), "breakend"),
        (Variant("c1", 100, base, base + "A" * 16), "too_long"),
        (Variant("c1", 100, base, base + "A" * 15), "scored"),
        (Variant("c1", 100, c1[99:116], base), "too_long"),
        (Variant("c1", 100, c1[99:115], base), "scored"),
        (Variant("c2", 61, c2[60], other(c2[60])), "scored"),  # 16 of 32 are N
        (Variant("c2", 60, "N", "A"), "too_many_n"),  # 17 of 32
        (Variant("c3", 40, "N", "A"), "too_many_n"),
    ]
    found = VariantScorer(tiny("ph"), fasta, window=32).score([variant for variant, _ in rows])
    assert found.status == [status for _, status in rows]
    scored = np.array([status == "scored" for status in found.status])
    assert np.isfinite(found.score[scored]).all()
    assert np.isnan(found.score[~scored]).all()
    assert [bool(method) for method in found.method] == scored.tolist()
    assert found.score[0] == found.score[1]
    assert found.n_bases[[0, 15, 16, 17]].tolist() == [0, 16, 17, 32]
    stricter = VariantScorer(tiny("ph"), fasta, window=32, max_n=0.49).score([rows[15][0]])
    assert stricter.status == ["too_many_n"]
    assert VariantScorer(tiny("ph"), fasta, window=32).score([]).status == []


def test_distances_between_mean_features(genome: tuple[dict[str, str], FastaReader]) -> None:
    sequences, fasta = genome
    v = Variant("c1", 150, sequences["c1"][149], sequences["c1"][149] + "GG")
    for kind in ("ps", "ph", "hyena"):
        model = tiny(kind)
        scorer = VariantScorer(model, fasta, window=32, distance="both", embedding_window=6)
        found = scorer.score([v])
        pooled = []
        for text in naive_windows(sequences["c1"], v.pos, v.ref, v.alt, 32):
            hidden = model.features(torch.tensor([[IDS[base] for base in text]]), "both")[0]
            pooled.append(hidden[13:20].double().mean(0).numpy())  # 16 − 3 to 16 + 3
        ref, alt = pooled
        assert found.l2[0] == pytest.approx(float(np.sqrt(((ref - alt) ** 2).sum())), rel=1e-4)
        cosine = 1 - float(ref @ alt / np.sqrt((ref @ ref) * (alt @ alt)))
        assert found.cosine[0] == pytest.approx(cosine, abs=1e-6)
        assert found.l2[0] > 1e-3


def test_the_model_decides_about_windows_and_heads(genome: tuple[dict[str, str], FastaReader]) -> None:
    _, fasta = genome
    with pytest.raises(UserError, match="--window: 131 bases are more than hyena takes at once"):
        VariantScorer(tiny("hyena"), fasta, window=131)
    VariantScorer(tiny("hyena"), fasta, window=130)
    with pytest.raises(UserError, match="--window 3: a window has at least 4 bases"):
        VariantScorer(tiny("ph"), fasta, window=3)
    with pytest.raises(UserError, match="ph: has a classification head; likelihoods need a language model"):
        VariantScorer(tiny("ph", head="classification", num_classes=2), fasta)


def test_ids_of_alleles_are_those_of_the_genome() -> None:
    assert encode_bases("AcgT").tolist() == [7, 8, 9, 10]


def test_scores_that_are_no_numbers_are_not_scores(genome: tuple[dict[str, str], FastaReader]) -> None:
    """Else one strand would pass for the mean of both, and an empty cell for a score."""
    sequences, fasta = genome
    contig, sequence = next(iter(sequences.items()))
    model = tiny("ph")
    scorer = VariantScorer(model, fasta, window=16, batch_size=4)
    pos = next(p for p in range(40, 200) if set(sequence[p - 9 : p + 8]) <= set("ACGT"))
    variant = Variant(contig, pos, sequence[pos - 1], other(sequence[pos - 1]))
    good = scorer.score([variant])
    assert good.status == ["scored"]
    with torch.no_grad():
        model.model.embedding.weight[3] = torch.nan  # what stands at a masked base
    bad = scorer.score([variant])
    assert (bad.status, bad.method) == (["not_finite"], [""])
    assert np.isnan([bad.score[0], bad.forward[0], bad.reverse[0]]).all()
    assert "not_finite" in STATUSES


@pytest.mark.parametrize("kind", ["ph", "ps", "hyena"])
def test_logits_are_not_rounded_to_bfloat16(kind: str) -> None:
    """The model may run in bfloat16; its head and what comes after run in float32."""
    model = tiny(kind)
    half = prepare(model.model, kind, precision="bf16")
    ids = torch.randint(7, 11, (2, 64), generator=torch.Generator().manual_seed(1))
    exact, logits = model.logits(ids), half.logits(ids)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
    assert not torch.equal(logits, exact)
    assert float((logits - exact).abs().max()) < 0.15 * float(exact.abs().max())
    rows, positions = torch.tensor([0, 1]), torch.tensor([5, 60])
    torch.testing.assert_close(half.logits_at(ids, rows, positions), logits[rows, positions], atol=1e-5, rtol=1e-5)
