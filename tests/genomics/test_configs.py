"""Every packaged configuration of the DNA domain: it parses, and what it names can be built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import longscan
from longscan.core.training.data import ResumableDataModule
from longscan.core.training.module import TrainingModule
from longscan.core.training.run_files import packaged_configs
from longscan.core.training.verbs import Request, TrainingCLI
from longscan.genomics import prompting, target_tasks, tasks  # noqa: F401  (configurations call classes by bare names)
from longscan.genomics.data import FastaDataModule, SequenceTableDataModule

CONFIGS = {name: path for name, path in packaged_configs().items() if name.startswith("genomics/")}

#: Parameters of the model that each describes; the hg38 ones are the published sizes.
PARAMETERS = {
    "genomics/arabidopsis": 1_934_592,
    "genomics/arabidopsis_relatives": 1_934_592,
    "genomics/caduceus_hg38": 1_934_592,
    "genomics/coding": 82_752,
    "genomics/coding_decoys": 398_690,
    "genomics/hyenadna_hg38": 436_096,
    "genomics/lora_splice": 1_935_360,
    "genomics/predict": 470_702,
    "genomics/quickstart": 42_768,
    "genomics/quickstart_finetune": 42_912,
    "genomics/soft_prompt": 436_354,
    "genomics/splice": 326_400,
    "genomics/splice_finetune": 1_935_360,
}

#: Those whose data are folders to bring; test_benchmark_configs trains each on made-up ones.
BENCHMARKS = {
    "genomics/chromatin_profile",
    "genomics/genomic_benchmarks",
    "genomics/genomic_benchmarks_hyenadna",
    "genomics/gue",
    "genomics/long_classification_131k",
    "genomics/long_classification_16k",
    "genomics/long_classification_1k",
    "genomics/long_classification_1m",
    "genomics/long_context_131k",
    "genomics/long_context_16k",
    "genomics/long_context_1k",
    "genomics/long_context_1m",
    "genomics/nucleotide_transformer",
    "genomics/samba_dna",
}


def parsed(name: str, *more: str) -> Any:
    """What the training verbs make of a configuration: trainer, task and data, nothing run."""
    verb = "predict" if name == "genomics/predict" else "fit"
    if verb == "predict":
        more = (*more, "--data.predict_file", "x.fa")
    argv = ["--config", str(CONFIGS[name]), "--trainer.accelerator", "cpu", *more]
    request = Request(verb, argv, "genomics", (), None, name, Path("run"), None, None)
    return TrainingCLI(request, TrainingModule, ResumableDataModule)


def built_on_meta(task: Any, data: Any) -> torch.nn.Module:
    head = {}
    if isinstance(data, SequenceTableDataModule) and "train" in data.files:
        head = {"head": "classification", "class_names": tuple(data.class_names)}
    with torch.device("meta"):
        return longscan.create_model(task.model_name, tokenizer=data.tokenizer.to_dict(), **task.options, **head)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write to the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["longscan"])


def test_the_list_is_complete() -> None:
    assert sorted(CONFIGS) == sorted([*PARAMETERS, *BENCHMARKS])


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_can_be_built(name: str) -> None:
    """Classes and options exist, the model has the size meant, the data are there or named where they are not."""
    cli = parsed(name)
    model = built_on_meta(cli.model, cli.datamodule)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    stage = "predict" if name == "genomics/predict" else "fit"
    if name in ("genomics/arabidopsis", "genomics/arabidopsis_relatives", "genomics/predict") or name.endswith("hg38"):
        with pytest.raises(ValueError, match=r"(hg38\.ml|thaliana|x)\.fa: no such file"):
            cli.datamodule.setup(stage)
    else:
        cli.datamodule.setup(stage)
        assert len(cli.datamodule.train_set) > 1000
        assert len(cli.datamodule.val_set) > 100


def test_published_recipes() -> None:
    """The numbers of the papers that the hg38 configurations claim to repeat."""
    caduceus = parsed("genomics/caduceus_hg38")
    assert caduceus.datamodule.batch_size * caduceus.datamodule.seqlen == 2**20
    assert (caduceus.trainer.max_steps, caduceus.model.optimizer_config.lr) == (10_000, 8e-3)
    assert caduceus.datamodule.objective == "masked"
    hyena = parsed("genomics/hyenadna_hg38")
    assert (hyena.trainer.max_epochs, hyena.model.optimizer_config.lr) == (100, 6e-4)
    assert isinstance(hyena.datamodule, FastaDataModule)
    assert hyena.datamodule.tokenizer.case == "keep"


def test_the_options_that_comments_suggest() -> None:
    """For PS, as the header of caduceus_hg38 says."""
    cli = parsed("genomics/caduceus_hg38", "--model.model", "caduceus_ps_1k_d256", "--data.rc_augment", "false")
    model = built_on_meta(cli.model, cli.datamodule)
    assert model.config.rcps  # type: ignore[union-attr]
    assert cli.datamodule.rc_probability == 0
