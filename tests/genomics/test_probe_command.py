"""``longscan genomics probe``: tables, files of embeddings and protocols."""

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
from longscan.genomics.inference import prepare
from longscan.genomics.probe_data import TableColumns, embed_table, join_embeddings
from longscan.genomics.tokenizer import DNATokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, and tables of sequences rich in AT or in GC, of two lengths."""
    folder = tmp_path_factory.mktemp("probe")
    torch.manual_seed(0)
    longscan.create_model("caduceus_ph_1k_d118", d_model=16, n_layer=1).save_pretrained(folder / "m")
    longscan.create_model("hyenadna_tiny_1k", d_model=16, n_layer=1, max_length=32).save_pretrained(folder / "h")
    generator = np.random.default_rng(0)
    fasta = []
    for name, rows in (("train", 60), ("test", 24)):
        lines = ["name\tsequence\tlabel\tchrom\tgc"]
        for row in range(rows):
            odds = (0.35, 0.15, 0.15, 0.35) if row % 2 else (0.15, 0.35, 0.35, 0.15)
            bases = "".join(generator.choice(list("ACGT"), size=40 + row % 3, p=odds))
            share = (bases.count("G") + bases.count("C")) / len(bases)
            lines.append(f"{name}{row}\t{bases}\t{('gc', 'at')[row % 2]}\tchr{row // 10}\t{share:.4f}")
            fasta.append(f">{name}{row}\n{bases}\n")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "all.fa").write_text("".join(fasta))
    rows_of = [(folder / f"{name}.tsv").read_text().splitlines() for name in ("train", "test")]
    (folder / "labels.tsv").write_text("\n".join([*rows_of[0], *rows_of[1][1:]]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSCAN_CACHE", str(folder / "cache"))
        yield folder


def test_tables_are_embedded_row_by_row(folder: Path) -> None:
    model = prepare(longscan.from_pretrained(folder / "m"), "m")
    data = embed_table(model, folder / "train.tsv", TableColumns(group="chrom"), strand="both", batch_size=4)
    assert data.x.shape == (60, 16)
    assert data.groups is not None
    assert data.groups.tolist() == [f"chr{row // 10}" for row in range(60)]
    for row in (0, 31):
        bases = (folder / "train.tsv").read_text().splitlines()[1 + row].split("\t")[1]
        ids = DNATokenizer().encode(bases, add_special_tokens=False)[None]
        np.testing.assert_allclose(data.x[row], model.features(ids, "both")[0].mean(0).numpy(), atol=1e-6)
    fewer = embed_table(model, folder / "train.tsv", limit=10, seed=3)
    chosen = np.sort(np.random.default_rng(3).permutation(60)[:10])
    np.testing.assert_array_equal(fewer.y, data.y[chosen])


def test_cross_validation_of_a_table(command: Any, folder: Path) -> None:
    line = f"genomics probe --model {folder}/m --table {folder}/train.tsv --output r.tsv --seeds 2 --values 0.1,1"
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    assert "60 rows, logistic, 10 folds of rows; mean ± sd" in outcome.out
    header, *rows = [line.split("\t") for line in Path("r.tsv").read_text().splitlines()]
    assert header[:9] == ["seed", "fold", "value", "train", "test", "roc_auc", "accuracy", "mcc", "f1_macro"]
    assert header[9:] == ["model", "revision", "pooling", "strand", "table", "protocol", "estimator"]
    revision = prepare(longscan.from_pretrained(folder / "m"), "m").revision
    assert {tuple(row[9:]) for row in rows} == {
        (f"{folder}/m", revision, "mean", "forward", f"{folder}/train.tsv", "nested", "logistic")
    }
    assert [(row[0], row[1]) for row in rows] == [(str(s), str(f)) for s in range(2) for f in range(1, 6)]
    assert np.mean([float(row[5]) for row in rows]) > 0.9
    mean = np.mean([float(row[6]) for row in rows])
    assert f"accuracy  {mean:.4f} ±" in outcome.out


def test_a_test_table_and_regression(command: Any, folder: Path) -> None:
    line = f"genomics probe --model {folder}/m --table {folder}/train.tsv --test {folder}/test.tsv --output r.json"
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    content = json.loads(Path("r.json").read_text())
    (row,) = content["results"]
    assert (row["train"], row["test"]) == (60, 24)
    assert row["accuracy"] > 0.8
    assert content["revision"] == prepare(longscan.from_pretrained(folder / "m"), "m").revision
    outcome = command(f"{line} --task regression --label-column gc --pooling mean")
    assert outcome.status == 0, outcome.err
    assert json.loads(Path("r.json").read_text())["results"][0]["r2"] > 0.9


def test_embeddings_from_a_file(command: Any, folder: Path) -> None:
    outcome = command(f"genomics embed --model {folder}/m --fasta {folder}/all.fa --output e.parquet")
    assert outcome.status == 0, outcome.err
    data = join_embeddings("e.parquet", folder / "labels.tsv", group_column="chrom")
    assert data.y.tolist() == [("gc", "at")[row % 2] for row in range(60)] + [("gc", "at")[r % 2] for r in range(24)]
    line = f"genomics probe --embeddings e.parquet --labels {folder}/labels.tsv"
    outcome = command(f"{line} --groups chrom --output r.json")
    assert outcome.status == 0, outcome.err
    about = json.loads(Path("r.json").read_text())
    revision = prepare(longscan.from_pretrained(folder / "m"), "m").revision
    assert (about["revision"], about["pooling"], about["strand"]) == (revision, "mean", "forward")
    assert "84 rows, logistic, 5 folds of whole groups" in outcome.out
    with pytest.raises(UserError, match=r"train.tsv: has no row for 'test0' of e.parquet"):
        join_embeddings("e.parquet", folder / "train.tsv")


def test_the_published_protocol_names_its_flaws(command: Any, folder: Path) -> None:
    line = f"genomics probe --model {folder}/m --table {folder}/train.tsv --test {folder}/test.tsv"
    outcome = command(f"{line} --protocol caduceus-vep --output r.json")
    assert outcome.status == 0, outcome.err
    assert "flaw of this protocol: ROC-AUC of hard predictions" in outcome.out
    assert "flaw of this protocol: C is picked on the test rows" in outcome.out
    assert outcome.out.count("(best on test)") == 1
    assert "no more than 5000 rows, so every seed draws the same" in outcome.out
    content = json.loads(Path("r.json").read_text())
    assert len(content["results"]) == 15
    assert len(content["flaws"]) == 3
    assert "drop_last" in content["flaws"][2]
    assert "both their boundaries" not in outcome.out  # there are no buckets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model m", "give one of --table, --dataset and --embeddings; 0 are given"),
        ("--model m --table train.tsv --dataset x", "2 are given"),
        ("--table train.tsv", "--table needs --model"),
        ("--embeddings e.parquet", "--embeddings needs --labels"),
        ("--embeddings e.parquet --labels labels.tsv", "e.parquet: no such file"),
        ("--model m --embeddings e.npz --labels labels.tsv", "--model has no use with --embeddings"),
        ("--embeddings e.npz --labels labels.tsv --pooling max", "--pooling has no use with --embeddings"),
        ("--embeddings e.npz --labels labels.tsv --strand both", "--strand has no use with --embeddings"),
        ("--model m --table train.tsv --values 1,nan", "--values 1,nan: must be one or more numbers above 0"),
        ("--model m --table train.tsv --labels labels.tsv", "--labels goes with --embeddings, not with --table"),
        ("--model m --dataset splice", "--dataset splice: is unknown (nearest: splice_sites_200"),
        ("--model m --table train.tsv --label-column class", "train.tsv:1: no column 'class'"),
        ("--model m --table train.tsv --task regression", "train.tsv:2: label 'gc' is no number"),
        ("--model m --table train.tsv --folds 31", "--folds 31: class 'at' of train.tsv has 30 row(s)"),
        ("--model m --table train.tsv --test test.tsv --folds 3", "--folds: there is a test table"),
        ("--model m --table train.tsv --estimator tree", "--estimator tree: is not for classification"),
        ("--model m --table train.tsv --values 1,x", "--values 1,x: is not a list of numbers"),
        ("--model m --table train.tsv --output r.csv", "--output r.csv: the ending does not say the format"),
        ("--model m --table train.tsv --protocol caduceus-vep", "needs a test table"),
        ("--model m --table train.tsv --test test.tsv --protocol caduceus-vep --seeds 2", "--seeds: --protocol"),
        ("--model m --table train.tsv --limit-train 0", "--limit-train 0: must be at least 1"),
        ("--model m --table train.tsv --around 8", "--around goes with --alt-column"),
        ("--model m --table train.tsv --alt-column alt --pooling max", "--pooling has no use with --alt-column"),
        ("--model m --table train.tsv --alt-column alt --around 0", "--around 0: must be at least 1"),
        ("--model m --table train.tsv --alt-column alt", "train.tsv:1: no column 'alt'"),
        ("--model m --table train.tsv --alt-column sequence", "train.tsv:2: sequence and sequence do not differ"),
        ("--model m --table train.tsv --category-column organ", "no column 'organ'"),
        ("--model m --table train.tsv --distance-column gc", "--distance-column needs a test table"),
        (
            "--model m --table train.tsv --test test.tsv --distance-column chrom",
            "train.tsv:2: chrom 'chr0' is no number of bases",
        ),
        ("--model m --dataset x --alt-column alt", "--alt-column goes with --table, not with --dataset"),
        ("--model m --dataset x --distance-column d", "--distance-column goes with --table, not with --dataset"),
        (
            "--embeddings e.npz --labels labels.tsv --category-column chrom",
            "--category-column goes with --table, not with --embeddings",
        ),
        ("--model h --table train.tsv", "train.tsv:4: a record of 42 bases is longer than h takes (32)"),
    ],
)
def test_bad_options(command: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, options: str, message: str) -> None:
    monkeypatch.chdir(folder)
    outcome = command(f"genomics probe {options}")
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_undefined_metrics_are_not_averaged(command: Any, folder: Path) -> None:
    """A fold whose test rows are of one class has no ROC-AUC: JSON says null, the table says of how many folds."""
    lines = ["name\tsequence\tlabel\tplace"]
    for row in range(24):
        place = row // 6
        label = "a" if place == 0 else ("a", "b")[row % 2]
        lines.append(f"s{row}\t{'ACGT' * 3 if label == 'a' else 'GGCC' * 3}{'ACGT'[row % 4] * 2}\t{label}\tp{place}")
    Path("t.tsv").write_text("\n".join(lines) + "\n")
    line = f"genomics probe --model {folder}/m --table t.tsv --groups place --folds 4 --values 1 --output r.json"
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    values = [row["roc_auc"] for row in json.loads(Path("r.json").read_text())["results"]]
    assert values.count(None) == 1
    assert [row["mcc"] is None for row in json.loads(Path("r.json").read_text())["results"]].count(True) == 1
    assert "(of 3 folds, undefined in the others)" in outcome.out
    outcome = command(line.replace("--values 1", "--inner-folds 3"))
    assert outcome.status == 2
    assert "an inner fold of whole groups holds one class only" in outcome.err
