"""``longscan genomics embed``: files of embeddings, with what identifies them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch

import longscan
from longscan.genomics.embedding_files import read_pooled
from longscan.genomics.inference import DNAModel, prepare
from longscan.genomics.tokenizer import DNATokenizer, reverse_complement

SEQUENCES = {"one": "ACGTTGCAAGGCTATTACGACCA" * 12, "two": "GGATCCATNNAC", "three": "TTTACGGACCAT"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models and a genome of three records: 276, 12 and 12 bases."""
    folder = tmp_path_factory.mktemp("embed")
    torch.manual_seed(0)
    for name, options in (("causal", {"bidirectional": False}), ("ph", {})):
        longscan.create_model("caduceus_ph_1k_d118", d_model=16, n_layer=2, **options).save_pretrained(folder / name)
    longscan.create_model("hyenadna_tiny_1k", d_model=16, n_layer=2, max_length=130).save_pretrained(folder / "hyena")
    (folder / "g.fa").write_text("".join(f">{name} text\n{bases}\n" for name, bases in SEQUENCES.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSCAN_CACHE", str(folder / "cache"))
        yield folder


def load(folder: Path, name: str) -> DNAModel:
    return prepare(longscan.from_pretrained(folder / name), name)


def expected(model: DNAModel, bases: str, strand: Any = "forward") -> np.ndarray:
    ids = DNATokenizer().encode(bases, add_special_tokens=False)
    return model.features(ids[None], strand)[0].numpy()


def test_records_to_parquet(command: Any, folder: Path) -> None:
    outcome = command(f"genomics embed --model {folder}/causal --fasta {folder}/g.fa --output out.parquet --window 50")
    assert outcome.status == 0, outcome.err
    assert "3 item(s), 300 bases, 8 window(s), strand forward" in outcome.err
    assert "items above 50 bases: pieces of 50 with the state carried (exact)" in outcome.err
    table = pyarrow.parquet.read_table("out.parquet")
    assert table.column_names == ["name", "contig", "start", "end", "strand", "n_bases", "embedding"]
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[16]"
    model = load(folder, "causal")
    rows = table.to_pylist()
    assert [tuple(row.values())[:6] for row in rows] == [
        ("one", "one", 0, 276, "+", 0), ("two", "two", 0, 12, "+", 2), ("three", "three", 0, 12, "+", 0),
    ]  # fmt: skip
    for row in rows:
        np.testing.assert_allclose(row["embedding"], expected(model, SEQUENCES[row["name"]]).mean(0), atol=2e-6)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert metadata["revision"] == model.revision
    assert metadata["longscan_version"] == longscan.__version__
    assert (metadata["pooling"], metadata["strand"], metadata["window"]) == ("mean", "forward", "50")


def test_npz_holds_the_same(command: Any, folder: Path) -> None:
    line = f"genomics embed --model {folder}/ph --fasta {folder}/g.fa --strand both --pooling max"
    for output in ("a.npz", "a.parquet"):
        outcome = command(f"{line} --output {output}")
        assert outcome.status == 0, outcome.err
    with np.load("a.npz") as arrays:
        assert sorted(arrays) == ["contigs", "embeddings", "ends", "metadata", "n_bases", "names", "starts", "strands"]
        assert arrays["embeddings"].dtype == np.float32
        assert json.loads(str(arrays["metadata"]))["method"] == "one pass (exact)"
    columns, vectors, metadata = read_pooled("a.npz")
    other_columns, other, other_metadata = read_pooled("a.parquet")
    np.testing.assert_array_equal(vectors, other)
    assert metadata == other_metadata
    for name, values in columns.items():
        assert values.tolist() == other_columns[name].tolist()


def test_intervals_are_embedded_in_their_own_orientation(command: Any, folder: Path) -> None:
    Path("r.bed").write_text("one\t10\t40\tplus\t0\t+\none\t10\t40\tminus\t0\t-\nthree\t0\t4\n")
    outcome = command(f"genomics embed --model {folder}/ph --fasta {folder}/g.fa --bed r.bed --output o.npz")
    assert outcome.status == 0, outcome.err
    columns, vectors, _ = read_pooled("o.npz")
    assert columns["name"].tolist() == ["plus", "minus", "three:0-4"]
    assert columns["strand"].tolist() == ["+", "-", "+"]
    model, part = load(folder, "ph"), SEQUENCES["one"][10:40]
    np.testing.assert_allclose(vectors[0], expected(model, part).mean(0), atol=1e-6)
    np.testing.assert_allclose(vectors[1], expected(model, reverse_complement(part)).mean(0), atol=1e-6)


def test_summits_are_padded_and_reported(command: Any, folder: Path) -> None:
    Path("p.narrowPeak").write_text("one\t0\t30\tp1\t0\t.\t1\t1\t1\t2\none\t50\t90\tp2\t0\t.\t1\t1\t1\t20\n")
    line = f"genomics embed --model {folder}/ph --fasta {folder}/g.fa --bed p.narrowPeak --around-summit 20"
    outcome = command(f"{line} --output o.parquet")
    assert outcome.status == 0, outcome.err
    assert "padded with N past the ends of contigs: 1 item(s), 8 bases; first: p1" in outcome.err
    columns, vectors, _ = read_pooled("o.parquet")
    assert (columns["start"].tolist(), columns["end"].tolist()) == ([-8, 60], [12, 80])
    assert columns["n_bases"].tolist() == [8, 0]
    one = SEQUENCES["one"]
    np.testing.assert_allclose(
        vectors, [expected(load(folder, "ph"), part).mean(0) for part in ("N" * 8 + one[:12], one[60:80])], atol=1e-6
    )


def test_every_base(command: Any, folder: Path) -> None:
    Path("r.bed").write_text("one\t10\t110\ta\t0\t-\ntwo\t2\t7\tb\n")
    line = f"genomics embed --model {folder}/causal --fasta {folder}/g.fa --bed r.bed --pooling none --window 32"
    for output in ("o.parquet", "o.npz"):
        outcome = command(f"{line} --output {output}")
        assert outcome.status == 0, outcome.err
    model, parts = load(folder, "causal"), (reverse_complement(SEQUENCES["one"][10:110]), SEQUENCES["two"][2:7])
    each = [expected(model, part) for part in parts]
    table = pyarrow.parquet.read_table("o.parquet")
    assert table.column_names == ["name", "contig", "position", "strand", "embedding"]
    assert table["position"].to_pylist() == [*range(109, 9, -1), *range(2, 7)]
    assert table["name"].to_pylist() == ["a"] * 100 + ["b"] * 5
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), np.concatenate(each), atol=2e-6)
    assert pyarrow.parquet.ParquetFile("o.parquet").num_row_groups == 5  # pieces of 32, 32, 32, 4 and 5 bases
    with np.load("o.npz") as arrays:
        for number, values in enumerate(each):
            np.testing.assert_allclose(arrays[f"embeddings_{number}"], values, atol=2e-6)
        assert arrays["names"].tolist() == ["a", "b"]


def test_windows_of_a_model_with_a_limit(command: Any, folder: Path) -> None:
    line = f"genomics embed --model {folder}/hyena --fasta {folder}/g.fa --output o.parquet"
    outcome = command(line)
    assert outcome.status == 2
    assert "a record of 276 bases is longer than" in outcome.err
    assert "give --window 130" in outcome.err
    outcome = command(f"{line} --window 130")
    assert outcome.status == 0, outcome.err
    assert "windows of 130, context 32 left and 0 right (approximate)" in outcome.err


def test_an_estimate_comes_first(command: Any, folder: Path) -> None:
    line = f"genomics embed --model {folder}/causal --fasta embedded:yeast1 --window 2048 --output o.npz"
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    assert "1 item(s), 230,218 bases, 113 window(s)" in outcome.err
    assert "estimated time " in outcome.err
    assert " s, peak memory " in outcome.err


def test_items_of_nothing_but_n(command: Any, folder: Path) -> None:
    Path("n.fa").write_text(">a\nACGT\n>gap\nNNNN\n")
    line = f"genomics embed --model {folder}/ph --fasta n.fa --output o.npz"
    outcome = command(line)
    assert outcome.status == 2
    assert "n.fa: 'gap' (gap:0-4) holds nothing but N" in outcome.err
    assert not Path("o.npz").exists()
    outcome = command(f"{line} --max-n-fraction 0.5")
    assert outcome.status == 0, outcome.err
    assert "left out for more than 0.5 N: 1 item(s): gap" in outcome.err
    assert read_pooled("o.npz")[0]["name"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--output o.csv", "--output o.csv: the ending does not say the format"),
        ("--output o.npz --around-summit 5", "--around-summit: has no meaning without --bed"),
        ("--output o.npz --aliases a.txt", "--aliases: has no meaning without --bed"),
        ("--output o.npz --bed none.bed", "none.bed: no such file"),
        ("--output o.npz --window 0", "--window 0: must be at least 1"),
        ("--output o.npz --pooling none --strand both --window 50", "--pooling none with --strand both"),
        ("--output o.npz --pooling median", "invalid choice: 'median'"),
    ],
)
def test_bad_options(command: Any, folder: Path, options: str, message: str) -> None:
    outcome = command(f"genomics embed --model {folder}/causal --fasta {folder}/g.fa {options}")
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.splitlines()[-1].startswith("longscan: error: ")
    assert not Path("o.npz").exists()


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_an_embedding_that_is_no_number_is_an_error(command: Any, folder: Path, pooling: str) -> None:
    model: Any = longscan.from_pretrained(folder / "ph")
    with torch.no_grad():
        model.embedding.weight[8] = torch.inf
    model.save_pretrained("broken")
    Path("t.fa").write_text(">a\nAGGATTA\n>with_c\nAGGACTA\n")
    outcome = command(f"genomics embed --model broken --fasta t.fa --output o.parquet --pooling {pooling}")
    assert outcome.status == 2
    assert "'with_c': its embedding is not finite" in outcome.err
    assert not list(Path().glob("*.parquet"))
