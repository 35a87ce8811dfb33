"""The packaged genomes and tasks are what their README says."""

from __future__ import annotations

import gzip
import hashlib
import json

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.genomics.data.fasta import open_fasta
from longscan.genomics.data.tables import read_table
from longscan.genomics.datasets import dataset_path
from longscan.genomics.tokenizer import DNATokenizer


@pytest.mark.parametrize(
    ("name", "record", "length"),
    [("embedded:drosophila4", "NC_004353.4", 1_348_131), ("embedded:yeast1", "NC_001133.9", 230_218)],
)
def test_genomes_have_their_length_and_gc_content(name: str, record: str, length: int) -> None:
    before = sorted(dataset_path("splice_sites_200").parent.iterdir())
    reader = open_fasta(name)
    assert sorted(dataset_path("splice_sites_200").parent.iterdir()) == before  # no index in the package
    assert reader.lengths == {record: length}
    assert reader.names == [record]
    raw = gzip.decompress(reader.path.read_bytes()).split(b"\n", 1)[1].upper()
    gc = (raw.count(b"G") + raw.count(b"C")) / sum(raw.count(base) for base in (b"A", b"C", b"G", b"T"))
    ids = DNATokenizer().encode_symbols(reader.fetch(record, 0, length))
    counts = np.bincount(ids, minlength=12)
    assert counts.sum() == length
    assert (counts[8] + counts[9]) / counts[7:11].sum() == pytest.approx(gc, abs=1e-12)
    assert gc == pytest.approx({"embedded:drosophila4": 0.3525, "embedded:yeast1": 0.3927}[name], abs=1e-4)


@pytest.mark.parametrize("task", ["splice_sites_200", "coding_vs_intergenic_200"])
def test_tasks_have_the_counts_of_their_meta_json(task: str) -> None:
    folder = dataset_path(task)
    counts = json.loads((folder / "meta.json").read_text())["counts"]
    assert set(counts) == {"train", "val", "test", "test_arenosa"}
    for split, expected in counts.items():
        table = read_table(folder / f"{split}.tsv.gz", DNATokenizer())
        assert table.labels is not None
        values, found = np.unique(table.labels, return_counts=True)
        assert dict(zip(values, found.tolist(), strict=True)) == {k: v for k, v in expected.items() if k != "sha256"}
        assert set(table.lengths.tolist()) == {200}


def test_splice_sites_lie_at_index_100() -> None:
    table = read_table(dataset_path("splice_sites_200") / "val.tsv.gz", DNATokenizer())
    sequences = table.symbols.reshape(-1, 200)
    gt = (sequences[:, 100] == 9) & (sequences[:, 101] == 10)
    ag = (sequences[:, 98] == 7) & (sequences[:, 99] == 9)
    assert gt[table.labels == "1"].all()
    assert ag[table.labels == "2"].all()
    assert (gt | ag)[table.labels == "0"].all()


def test_packaged_files_are_unchanged() -> None:
    expected = {
        "drosophila_melanogaster_chr4.fna.gz": "7b964baf5415985d",
        "saccharomyces_cerevisiae_chrI.fna.gz": "4c01effded906f16",
        "splice_sites_200/train.tsv.gz": "07188aa966a1a456",
        "coding_vs_intergenic_200/train.tsv.gz": "6f4e5e4d34f2c976",
    }
    for name, digest in expected.items():
        head, _, tail = name.partition("/")
        assert hashlib.sha256((dataset_path(head) / tail).read_bytes()).hexdigest()[:16] == digest, name


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'splice'.*splice_sites_200"):
        dataset_path("splice")
    with pytest.raises(UserError, match=r"unknown embedded genome 'embedded:yeast'.*embedded:yeast1"):
        open_fasta("embedded:yeast")
