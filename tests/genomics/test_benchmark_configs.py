"""The configurations of benchmarks, long context and hybrids: each trains for a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import longscan
from longscan.core.mixers import list_mixers
from longscan.core.training.run_files import packaged_configs

FAST = "--trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.limit_val_batches 1"
STEPS = f"{FAST} --trainer.max_steps 2 --data.num_workers 0 --data.batch_size 4"
SMALL = "--model.options.d_model 16 --model.options.n_layer 1"


def config(name: str) -> dict[str, Any]:
    return yaml.safe_load(packaged_configs()[f"genomics/{name}"].read_text())


def parameters(name: str) -> int:
    """Of the model as configured, with a head of two outputs where it is not a language model."""
    task = config(name)["model"]
    head = {"head": "classification", "num_classes": 2} if task["class_path"] != "LanguageModeling" else {}
    import torch

    with torch.device("meta"):
        model = longscan.create_model(task["init_args"]["model"], **task["init_args"].get("options", {}), **head)
    return sum(parameter.numel() for parameter in model.parameters())


def bases(generator: np.random.Generator, length: int) -> str:
    return "".join(generator.choice(list("ACGT"), size=length))


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    """Every benchmark's folder with a few sequences of two classes, and a genome of three chromosomes with a BED."""
    generator = np.random.default_rng(0)
    for split, rows in (("train", 20), ("dev", 4), ("test", 4)):
        tables: dict[str, list[str]] = {"fasta": [], "csv": ["sequence,label"], "tsv": ["sequence\tlabel"]}
        for row in range(rows):
            text, label = bases(generator, int(generator.integers(30, 60))), row % 2
            folder = tmp_path / "gb" / "demo" / split / ("negative", "positive")[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row}.txt").write_text(text)
            tables["fasta"].append(f">s{row}|{label}\n{text}")
            tables["csv"].append(f"{text},{label}")
            tables["tsv"].append(f"{text}\t{('DNase;CTCF', 'CTCF', '.', 'DNase')[row % 4]}")
        for kind, name in (("nt/H3", f"{split}.fasta"), ("gue/EMP/H3", f"{split}.csv"), ("dl", f"{split}.tsv")):
            path = tmp_path / kind / name.replace("dev", "val" if kind == "dl" else "dev")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(tables[path.suffix[1:]]) + "\n")
    (tmp_path / "nt/H3/dev.fasta").unlink()
    contigs = {f"chr{i}": bases(generator, 400) for i in (1, 2, 5)}
    (tmp_path / "genome.fa").write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    regions = [f"{name}\t{i * 40}\t{i * 40 + 9}\t{'ab'[i % 2]}\n" for name in contigs for i in range(8)]
    (tmp_path / "regions.bed").write_text("".join(regions))
    return tmp_path


#: name: arguments that make it small and say where the data is; parameters of the model; what is measured.
CLASSIFIERS = {
    "genomic_benchmarks": ("--data.folder {0}/gb --data.task demo", 470_938, "val/accuracy"),
    "genomic_benchmarks_hyenadna": ("--data.folder {0}/gb --data.task demo", 436_354, "val/accuracy"),
    "nucleotide_transformer": ("--data.folder {0}/nt --data.task H3", 1_935_104, "val/mcc"),
    "gue": ("--data.folder {0}/gue --trainer.val_check_interval 1.0", 1_935_104, "val/mcc"),
    "chromatin_profile": ("--data.folder {0}/dl", 1_641_602, "val/auroc_median"),
}
SIZES = {"1k": 436_354, "16k": 436_354, "131k": 6_551_042, "1m": 6_551_042}
CLASSIFIERS |= {
    f"long_classification_{length}": (
        "--data.fasta {0}/genome.fa --data.bed {0}/regions.bed --data.val_chromosomes [chr1] --trainer.precision "
        "32-true --data.test_chromosomes [chr5] --data.width 64 --trainer.accumulate_grad_batches 1 "
        "--trainer.callbacks [] --trainer.reload_dataloaders_every_n_epochs 0",
        size,
        "val/accuracy",
    )
    for length, size in SIZES.items()
}
LONG = {"long_context_1k": 16, "long_context_16k": 256, "long_context_131k": 2048, "long_context_1m": 15_625}


def test_the_list_is_complete() -> None:
    """Together with test_configs, which asks for the names below."""
    names = {name.removeprefix("genomics/") for name in packaged_configs()}
    assert {*CLASSIFIERS, *LONG, "samba_dna"} <= names


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_train(name: str, command: Any, benchmarks: Path) -> None:
    where, size, metric = CLASSIFIERS[name]
    assert parameters(name) == size
    outcome = command(f"genomics fit --config {name} --output run {SMALL} {STEPS} {where.format(benchmarks)}")
    assert outcome.status == 0, outcome.err
    result = json.loads(Path("run/metrics.json").read_text())
    assert result["steps"] == 2
    assert result["best"]["monitor"] == metric
    assert not any(key.startswith("test/") for key in result["metrics"])
    outcome = command(f"genomics test --ckpt_path run/checkpoints/best.ckpt {FAST.rsplit(' --', 1)[0]}")
    assert outcome.status == 0, outcome.err
    assert f"{metric.replace('val', 'test')}" in json.loads(Path("run/test/metrics.json").read_text())["metrics"]


@pytest.mark.parametrize("name", LONG)
def test_long_context_keeps_the_tokens_per_step(name: str, command: Any) -> None:
    """As configured, the stages have the same number of tokens; shrunken, three of them train one after the other."""
    whole = config(name)
    assert whole["model"]["init_args"]["options"]["gradient_checkpointing"] is True
    data = whole["data"]["init_args"]
    (warmup,) = whole["trainer"]["callbacks"]
    stages = warmup["init_args"]["stages"]
    tokens = [stage["seqlen"] * stage["batch_size"] for stage in stages]
    assert max(tokens) / min(tokens) < 1.05
    assert tokens[0] == 2 ** (20 if name == "long_context_1m" else 18)
    assert (stages[-1]["seqlen"], stages[-1]["batch_size"]) == (data["seqlen"], data["batch_size"])
    assert sum(stage["epochs"] for stage in stages) == whole["trainer"]["max_epochs"]
    longest = longscan.create_model(whole["model"]["init_args"]["model"], d_model=8, n_layer=1).config.max_length
    assert data["seqlen"] <= longest - 2 <= 1.25 * data["seqlen"]

    shrink = LONG[name]
    warmup["init_args"]["stages"] = [
        {"epochs": 1, "seqlen": stage["seqlen"] // shrink or 2, "batch_size": 4} for stage in stages[-3:]
    ]
    data |= {"fasta": "embedded:yeast1", "bed": None, "split": "blocks", "block_size": 20_000, "num_workers": 0}
    data |= {"seqlen": data["seqlen"] // shrink, "batch_size": 4, "eval_batch_size": 4}
    whole["trainer"] |= {"limit_train_batches": 1, "max_epochs": 3, "precision": "32-true"}
    Path("small.yaml").write_text(yaml.safe_dump(whole))
    outcome = command(f"genomics fit --config small.yaml --output run {SMALL} {FAST}")
    assert outcome.status == 0, outcome.err
    assert json.loads(Path("run/metrics.json").read_text())["steps"] == 3


def test_a_causal_mamba_in_place_of_hyena(command: Any) -> None:
    """As the comments of the long_context configurations say."""
    line = "genomics fit --config long_context_16k --output run --model.model caduceus_ph_131k --model.options "
    line += "'{bidirectional: false, gradient_checkpointing: true, d_model: 16, n_layer: 1}' --model.optimizer.lr 8e-3 "
    line += "--data.fasta embedded:yeast1 --data.bed null --data.split blocks --data.block_size 20000 "
    line += "--data.seqlen 1024 --data.eval_batch_size 4 --trainer.precision 32-true --trainer.callbacks null "
    outcome = command(f"{line} --trainer.reload_dataloaders_every_n_epochs 0 {STEPS}")
    assert outcome.status == 0, outcome.err


def test_the_hybrid_trains(command: Any) -> None:
    assert parameters("samba_dna") == 240_960
    layers = config("samba_dna")["model"]["init_args"]["options"]["backbone"]["layers"]
    names = [layer if isinstance(layer, str) else layer["name"] for layer in layers]
    assert names == ["mamba", "gated_mlp", "attention", "gated_mlp"]
    assert {"mamba", "attention"} <= set(list_mixers())
    outcome = command(f"genomics fit --config samba_dna --output run {STEPS} --data.seqlen 64")
    assert outcome.status == 0, outcome.err
    assert json.loads(Path("run/metrics.json").read_text())["parameters"] == 240_960
    model: Any = longscan.from_pretrained("run/model")
    assert model.backbone.causal


def test_early_stopping_by_the_test_set_is_refused(command: Any, benchmarks: Path) -> None:
    line = f"genomics fit --config genomic_benchmarks --data.folder {benchmarks}/gb --data.task demo {SMALL} {STEPS}"
    outcome = command(f"{line} --output run --checkpoint.monitor test/accuracy")
    assert outcome.status == 2
    assert "checkpoint.monitor 'test/accuracy': a model is not chosen or stopped by the test set" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize("length", SIZES)
def test_long_classification_goes_from_short_windows_to_long_ones(length: str, command: Any, benchmarks: Path) -> None:
    whole = config(f"long_classification_{length}")
    assert whole["model"]["init_args"]["options"]["gradient_checkpointing"] is True
    data = whole["data"]["init_args"]
    stages = whole["trainer"]["callbacks"][0]["init_args"]["stages"]
    tokens = [stage["seqlen"] * stage["batch_size"] for stage in stages]
    assert max(tokens) / min(tokens) < 1.05
    assert (stages[-1]["seqlen"], stages[-1]["batch_size"]) == (data["width"], data["batch_size"])
    assert sum(stage["epochs"] for stage in stages) == whole["trainer"]["max_epochs"]
    if length != "16k":
        return

    whole["trainer"]["callbacks"][0]["init_args"]["stages"] = [
        {"epochs": 1, "seqlen": 16, "batch_size": 4},
        {"epochs": 1, "seqlen": 64, "batch_size": 2},
    ]
    data |= {"fasta": str(benchmarks / "genome.fa"), "bed": str(benchmarks / "regions.bed"), "width": 64}
    data |= {"val_chromosomes": ["chr1"], "test_chromosomes": ["chr5"], "num_workers": 0}
    whole["trainer"] |= {"max_epochs": 2, "precision": "32-true"}
    Path("small.yaml").write_text(yaml.safe_dump(whole))
    outcome = command(f"genomics fit --config small.yaml --output run {SMALL} {FAST}")
    assert outcome.status == 0, outcome.err
    assert json.loads(Path("run/metrics.json").read_text())["steps"] == 8 // 4 + 8 // 2  # eight intervals on chr2
