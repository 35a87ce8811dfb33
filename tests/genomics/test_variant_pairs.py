"""Features of pairs of sequences, their categories and distances, by hand and by command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.genomics.caduceus_protocol import distance_buckets
from longscan.genomics.inference import DNAModel, prepare
from longscan.genomics.probe_data import TableColumns, add_categories
from longscan.genomics.probing import ProbeData, ProbeSettings, evaluate_once, evaluate_parts
from longscan.genomics.tokenizer import reverse_complement_ids
from longscan.genomics.variant_pairs import embed_pairs, find_variant, read_pairs

HEADER = "sequence_ref\tsequence_alt\tlabel\ttissue\tdistance"
COLUMNS = {"alt_column": "sequence_alt", "columns": TableColumns(sequence="sequence_ref")}


def changed(bases: str, place: int) -> str:
    """The sequence with another base at ``place``."""
    return bases[:place] + {"A": "C", "C": "G", "G": "T", "T": "A"}[bases[place]] + bases[place + 1 :]


def bases_of(length: int, seed: int, strong: float = 0.25) -> str:
    """Random bases; ``strong`` is the probability of C, and that of G."""
    weak = 0.5 - strong
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), size=length, p=(weak, strong, strong, weak)))


def write(path: Path, rows: list[tuple[str, ...]]) -> Path:
    path.write_text("\n".join([HEADER, *("\t".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models, and tables of variants in the middle of sequences: rich in AT for class ``yes``, in GC for ``no``."""
    folder = tmp_path_factory.mktemp("pairs")
    torch.manual_seed(0)
    longscan.create_model("caduceus_ph_1k_d118", d_model=16, n_layer=1).save_pretrained(folder / "m")
    longscan.create_model("caduceus_ps_1k_d118", d_model=16, n_layer=1).save_pretrained(folder / "ps")
    longscan.create_model("hyenadna_tiny_1k", d_model=16, n_layer=1, max_length=32).save_pretrained(folder / "h")
    distances = ("0", "30000", "50000", "100000", "200000", "29999.5")
    for name, count in (("train", 72), ("test", 36)):
        rows = []
        for row in range(count):
            label, strong = (("no", 0.4), ("yes", 0.1))[row // 6 % 2]
            ref = bases_of(41, row + 1000 * (name == "test"), strong)
            tissue = ("liver", "brain", "skin")[row % 3]
            rows.append((ref, changed(ref, 20), label, tissue, distances[row % 6]))
        rows.append(("N" + "A" * 40, "N" + "A" * 39 + "C", "no", "liver", "5"))
        write(folder / f"{name}.tsv", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSCAN_CACHE", str(folder / "cache"))
        yield folder


def ask(folder: Path, name: str) -> DNAModel:
    return prepare(longscan.from_pretrained(folder / name), name)


def by_hand(model: DNAModel, bases: str, variant: int, half: int, strand: Any = "forward") -> np.ndarray:
    """Mean of the positions around the variant, taken one by one; those past an end are the one at the end."""
    features = model.features(model.tokenizer.encode(bases, add_special_tokens=False)[None], strand)[0].numpy()
    places = [min(max(place, 0), len(bases) - 1) for place in range(variant - half, variant + half + 1)]
    return np.mean([features[place].astype(np.float64) for place in places], axis=0)


@pytest.mark.parametrize("name", ["m", "ps"])
@pytest.mark.parametrize("strand", ["forward", "both"])
def test_features_are_means_around_the_variant(folder: Path, tmp_path: Path, name: str, strand: Any) -> None:
    """In the middle; past the start and the end, clamped; away from the middle; where two bases differ, the last."""
    model = ask(folder, name)
    rows, expected = [], []
    for seed, length, place, half in ((1, 40, 20, 5), (2, 41, 2, 5), (3, 40, 39, 5), (4, 40, 13, 5)):
        ref = bases_of(length, seed)
        alt = changed(ref, place)
        rows.append((ref, alt, "a", "t", "0"))
        expected.append([by_hand(model, bases, place, half, strand) for bases in (ref, alt)])
    ref = bases_of(40, 5)
    alt = changed(changed(ref, 4), 31)
    rows.append((ref.lower(), alt, "a", "t", "0"))
    expected.append([by_hand(model, bases, 31, 5, strand) for bases in (ref, alt)])
    pairs = read_pairs(model, write(tmp_path / "p.tsv", rows), **COLUMNS)
    assert pairs.variant.tolist() == [20, 2, 39, 13, 31]
    for batch_size in (1, 3):
        data = embed_pairs(model, pairs, around=11, strand=strand, batch_size=batch_size)
        assert data.x.shape == (5, 32)
        np.testing.assert_allclose(data.x, np.reshape(expected, (5, 32)), atol=1e-5)
    assert np.abs(data.x[:, :16] - data.x[:, 16:]).max(1).min() > 1e-4  # ref is not alt


def test_the_published_window_has_1537_positions(folder: Path, tmp_path: Path) -> None:
    model = ask(folder, "m")
    ref = bases_of(1700, 9)
    alt = changed(ref, 850)
    data = embed_pairs(model, read_pairs(model, write(tmp_path / "p.tsv", [(ref, alt, "a", "t", "0")]), **COLUMNS))
    for part, bases in ((data.x[0, :16], ref), (data.x[0, 16:], alt)):
        features = model.features(model.tokenizer.encode(bases, add_special_tokens=False)[None])[0].double()
        assert len(features[82:1619]) == 1537
        np.testing.assert_allclose(part, features[82:1619].mean(0).numpy(), atol=1e-6)


def test_the_other_strand_is_aligned(folder: Path, tmp_path: Path) -> None:
    """What ``both`` averages belongs to the same bases: the window of the reverse complement is mirrored."""
    model = ask(folder, "m")
    ref = bases_of(40, 7)
    alt = changed(ref, 20)
    pairs = read_pairs(model, write(tmp_path / "p.tsv", [(ref, alt, "a", "t", "0")]), **COLUMNS)
    data = embed_pairs(model, pairs, around=6, strand="both")
    ids = pairs.alt[0].astype(np.int64)
    forward = model.features(ids[None])[0, 17:24].mean(0)
    reverse = model.features(reverse_complement_ids(ids)[None])[0, 40 - 24 : 40 - 17].mean(0)  # base t is at 39 − t
    np.testing.assert_allclose(data.x[0, 16:], ((forward + reverse) / 2).numpy(), atol=1e-5)


def test_where_the_variant_is() -> None:
    one = np.zeros(6, np.uint8)
    for different, found in (([3], 3), ([0, 3, 5], 3), ([0, 4], 4), ([2], 2)):
        other = one.copy()
        other[different] = 1
        assert find_variant(one, other) == found
    with pytest.raises(ValueError, match="equal"):
        find_variant(one, one)


def test_rows_with_n_are_left_out(folder: Path, tmp_path: Path) -> None:
    """From 0.5 % of N in the reference on: 1 of 200 bases is left out, 1 of 201 and N in the alternative are not."""
    model = ask(folder, "m")
    rows = []
    for length, with_n in ((200, True), (201, True), (200, False)):
        ref = bases_of(length, length)
        alt = changed(ref, 100)
        rows.append(("N" + ref[1:] if with_n else ref, "N" + alt[1:], str(length), "t", "0"))
    pairs = read_pairs(model, write(tmp_path / "p.tsv", rows), **COLUMNS)
    assert pairs.left_out == 1
    assert pairs.facts.y.tolist() == ["201", "200"]
    with pytest.raises(UserError, match=r"q.tsv: every sequence_ref is N in 0.5% or more"):
        read_pairs(model, write(tmp_path / "q.tsv", rows[:1]), **COLUMNS)


def test_columns_follow_their_rows(folder: Path) -> None:
    model = ask(folder, "m")
    columns = TableColumns(sequence="sequence_ref", category="tissue", distance="distance", group="tissue")
    everything = read_pairs(model, folder / "train.tsv", "sequence_alt", columns)
    few = read_pairs(model, folder / "train.tsv", "sequence_alt", columns, limit=10, seed=3)
    chosen = np.sort(np.random.default_rng(3).permutation(72)[:10])
    assert everything.facts.categories is not None
    assert everything.facts.distances is not None
    assert everything.facts.distances[:6].tolist() == [0, 30_000, 50_000, 100_000, 200_000, 29_999.5]
    for name in ("y", "categories", "distances", "groups"):
        np.testing.assert_array_equal(getattr(few.facts, name), getattr(everything.facts, name)[chosen])
    np.testing.assert_array_equal(few.variant, everything.variant[chosen])
    assert all((one == everything.ref[row]).all() for one, row in zip(few.ref, chosen, strict=True))


def test_categories_become_features() -> None:
    x, y = np.ones((3, 2), np.float32), np.array(["a", "b", "a"])
    train = ProbeData("train", x, y, categories=np.array(["skin", "brain", "skin"]))
    test = ProbeData("test", x[:2], y[:2], categories=np.array(["liver", "skin"]))
    for one_hot, of_train, of_test in (
        (False, [[2], [0], [2]], [[1], [2]]),
        (True, [[0, 0, 1], [1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1]]),
    ):
        first, second = add_categories(train, test, one_hot=one_hot)
        assert second is not None
        np.testing.assert_array_equal(first.x, np.concatenate([x, of_train], 1))
        np.testing.assert_array_equal(second.x, np.concatenate([x[:2], of_test], 1))
        assert first.x.dtype == np.float32
    assert add_categories(train, None, one_hot=True)[0].x.shape == (3, 4)
    plain = ProbeData("plain", x, y)
    assert add_categories(plain, None, one_hot=True) == (plain, None)


def test_buckets_at_their_boundaries() -> None:
    distances = np.array([0, 29_999, 30_000, 99_999, 100_000, 1e9])
    published = {name: rows.tolist() for name, rows in distance_buckets(distances, closed=True).items()}
    assert published == {"[0, 30k]": [0, 1, 2], "[30k, 100k]": [2, 3, 4], "[100k, inf)": [4, 5]}
    honest = {name: rows.tolist() for name, rows in distance_buckets(distances, closed=False).items()}
    assert honest == {"[0, 30k)": [0, 1], "[30k, 100k)": [2, 3], "[100k, inf)": [4, 5]}


def test_one_fitted_model_is_measured_on_every_part() -> None:
    generator = np.random.default_rng(0)
    y = np.array(["a", "b"])[np.arange(60) % 2]
    x = (generator.normal(size=(60, 4)) + (y == "b")[:, None]).astype(np.float32)
    train, test = ProbeData("train", x[:40], y[:40]), ProbeData("test", x[40:], y[40:])
    settings = ProbeSettings(values=(0.1, 1.0))
    whole = evaluate_once(train, test, settings)
    parts = {"all": np.arange(20), "first": np.arange(6), "rest": np.arange(6, 20)}
    results = evaluate_parts(train, test, parts, settings)
    assert [(result.part, result.test) for result in results] == [("all", 20), ("first", 6), ("rest", 14)]
    assert results[0].metrics == whole.metrics
    accuracy = [result.metrics["accuracy"] for result in results]
    assert accuracy[0] == pytest.approx((6 * accuracy[1] + 14 * accuracy[2]) / 20)


def test_the_whole_published_protocol(command: Any, folder: Path) -> None:
    line = f"genomics probe --model {folder}/m --table {folder}/train.tsv --test {folder}/test.tsv --around 20"
    line += " --sequence-column sequence_ref --alt-column sequence_alt --category-column tissue --strand both"
    line += " --distance-column distance --output r.json"
    outcome = command(f"{line} --protocol caduceus-vep")
    assert outcome.status == 0, outcome.err
    assert "train.tsv: 1 row(s) left out, whose reference is N in 0.5% or more" in outcome.out
    assert "flaw of this protocol: buckets hold both their boundaries" in outcome.out
    content = json.loads(Path("r.json").read_text())
    assert len(content["flaws"]) == 4
    assert (content["around"], content["alt_column"], content["left_out"]) == (20, "sequence_alt", [1, 1])
    assert "pooling" not in content
    # Of every six rows, distances 0, 29,999.5 and 30,000 are in the first, 30,000, 50,000 and 100,000 in the second.
    sizes = {row["bucket"]: (row["train"], row["test"]) for row in content["results"]}
    assert sizes == {"all": (72, 36), "[0, 30k]": (36, 18), "[30k, 100k]": (36, 18), "[100k, inf)": (24, 12)}
    assert len(content["results"]) == 60
    assert outcome.out.count("(best on test)") == 4
    assert np.mean([row["auc_decision"] for row in content["results"] if row["bucket"] == "all"]) > 0.9

    outcome = command(line)
    assert outcome.status == 0, outcome.err
    rows = json.loads(Path("r.json").read_text())["results"]
    assert {row["bucket"]: row["test"] for row in rows} == {
        "all": 36, "[0, 30k)": 12, "[30k, 100k)": 12, "[100k, inf)": 12
    }  # fmt: skip
    assert rows[0]["roc_auc"] > 0.9
    accuracy = {row["bucket"]: row["accuracy"] for row in rows}
    assert accuracy["all"] == pytest.approx(np.mean([value for name, value in accuracy.items() if name != "all"]))
    table = [text.split() for text in outcome.out.splitlines()]
    assert ["rows", "36", "12", "12", "12"] in table
    assert ["accuracy", *(f"{value:.4f}" for value in accuracy.values())] in table


def test_a_bucket_without_both_classes_is_not_measured(command: Any, folder: Path) -> None:
    lines = (folder / "test.tsv").read_text().splitlines()
    near = [line for line in lines if line.split("\t")[4] in ("distance", "0")]
    Path("near.tsv").write_text("\n".join(near) + "\n")
    line = f"genomics probe --model {folder}/m --table {folder}/train.tsv --test near.tsv --around 20 --protocol "
    line += "caduceus-vep --sequence-column sequence_ref --alt-column sequence_alt --distance-column distance"
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    assert "near.tsv at distances in [30k, 100k]: not measured; the 36 training rows or the 0 test rows" in outcome.out
    assert outcome.out.count("(best on test)") == 2


def test_cross_validation_of_pairs(command: Any, folder: Path) -> None:
    line = f"genomics probe --model {folder}/m --table {folder}/train.tsv --around 20 --sequence-column sequence_ref"
    outcome = command(f"{line} --alt-column sequence_alt --category-column tissue --groups tissue --folds 3 --values 1")
    assert outcome.status == 0, outcome.err
    assert "72 rows, logistic, 3 folds of whole groups" in outcome.out


@pytest.mark.parametrize(
    ("model", "second", "message"),
    [
        ("m", ("ACGT", "ACGTA", "a", "t", "0"), ":3: sequence_ref has 4 bases, sequence_alt 5; give both one length"),
        ("m", ("ACGT", "acgt", "a", "t", "0"), ":3: sequence_ref and sequence_alt do not differ; correct or remove"),
        ("m", ("ACGT", "ACCT", "a", "", "0"), ":3: column 'tissue' is empty"),
        ("m", ("ACGT", "ACCT", "a", "t", "-1"), ":3: distance '-1' is no number of bases (0 or more); correct it"),
        ("m", ("ACGT", "ACCT", "a", "t", "nan"), ":3: distance 'nan' is no number of bases (0 or more)"),
        ("h", ("A" * 33, "A" * 32 + "C", "a", "t", "0"), ":3: 33 bases are more than"),
    ],
)
def test_bad_rows(command: Any, folder: Path, model: str, second: tuple[str, ...], message: str) -> None:
    path = write(Path("bad.tsv"), [("ACGT", "ACCT", "b", "t", "0"), second])
    line = f"genomics probe --model {folder}/{model} --table {path} --test {path} --sequence-column sequence_ref"
    outcome = command(f"{line} --alt-column sequence_alt --category-column tissue --distance-column distance")
    assert outcome.status == 2
    assert f"bad.tsv{message}" in outcome.err
    assert outcome.err.count("\n") == 1
