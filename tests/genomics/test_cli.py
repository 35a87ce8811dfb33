"""The training verbs of the DNA domain on real data: pretrain, fine-tune, measure, predict, resume, interrupt."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import longscan
from longscan.core.training.callbacks import BestCheckpoint
from longscan.genomics.datasets import dataset_path
from longscan.genomics.tokenizer import DNATokenizer

TINY = (
    "--model.options '{d_model: 16, n_layer: 1}' --data.batch_size 8 --trainer.accelerator cpu "
    "--trainer.enable_progress_bar false --trainer.limit_val_batches 2"
)
FAST = "--trainer.accelerator cpu --trainer.enable_progress_bar false"
PLAIN = DNATokenizer(special_tokens="none")


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def rows_of(path: str | Path) -> list[list[str]]:
    return [line.split("\t") for line in Path(path).read_text().splitlines()]


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


# fit


def test_pretraining_leaves_a_whole_run(pretrained: Any) -> None:
    """Three steps, far less than an epoch: it was validated nonetheless, and every file is there."""
    folder, outcome = pretrained
    for name in (
        "config.yaml",
        "metrics.json",
        "learning_curves.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "tensorboard").glob("events*"))
    result = metrics(folder)
    assert result["steps"] == 3
    assert 2 < result["metrics"]["val/perplexity"] < 16.5  # 16 rows of vocabulary, hardly trained
    assert result["best"] == {
        "monitor": "val/loss",
        "value": pytest.approx(result["metrics"]["val/loss"]),
        "checkpoint": "checkpoints/best.ckpt",
    }
    model = longscan.from_pretrained(folder / "model")
    best = weights_of(folder / "checkpoints" / "best.ckpt")
    state = model.state_dict()
    assert state.keys() == best.keys()
    assert all(torch.equal(state[name], best[name]) for name in state)
    assert model.config.d_model == 16
    for line in ("val/perplexity", "best val/loss", str(folder / "model"), str(folder / "checkpoints" / "best.ckpt")):
        assert line in outcome.out


def test_standard_error_has_our_messages_and_nothing_else(pretrained: Any) -> None:
    """Windows are counted for the user; what libraries warn of is not shown."""
    _, outcome = pretrained
    assert [line.split(";")[0] for line in outcome.err.splitlines()] == [
        "train: 951 windows of 200 bases",
        "val: 100 windows of 200 bases",
    ]


def test_messages_are_not_shown_twice(command: Any, tables: Path) -> None:
    """The handler goes when the verb ends; held-out rows are told, and weight averaging is quiet."""
    data = f"--data.dataset null --data.train_file {tables}/train.tsv"
    average = "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging"
    line = f"genomics fit --config quickstart_finetune {TINY} {data} --trainer.max_steps 1 {average}"
    for output in ("one", "two"):
        outcome = command(f"{line} --output {output}")
        assert outcome.status == 0, outcome.err
        (message,) = outcome.err.splitlines()
        assert re.match(r"no validation file: 4 of the 48 rows of .*train\.tsv are held out", message)
    assert logging.getLogger("longscan").handlers == []


def test_resuming_goes_on_to_more_steps(command: Any, pretrained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--ckpt_path last`` with a larger max_steps; the second run begins with the weights of the first."""
    shutil.copytree(pretrained[0], "again")
    before = torch.load("again/checkpoints/last.ckpt", weights_only=True)
    line = f"genomics fit --config genomics/quickstart --output again {TINY} --data.fasta embedded:yeast1"
    outcome = command(f"{line} --ckpt_path last --trainer.max_steps 5")
    assert outcome.status == 0, outcome.err
    after = torch.load("again/checkpoints/last.ckpt", weights_only=True)
    assert (before["global_step"], after["global_step"]) == (3, 5)
    assert after["FastaDataModule"]["batch"] == 5
    assert metrics(Path("again"))["steps"] == 5
    change = max((after["state_dict"][name] - value).abs().max().item() for name, value in before["state_dict"].items())
    assert 0 < change < 0.1  # two steps of AdamW, not a new beginning
    assert longscan.from_pretrained("again/model").config.d_model == 16


def test_a_run_that_was_moved_keeps_its_best(tmp_path: Path, pretrained: Any) -> None:
    """What is best is known by value and place; a checkpoint without its run says nothing of another folder."""
    shutil.copytree(pretrained[0], tmp_path / "moved")
    last = torch.load(tmp_path / "moved" / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = [state for key, state in last["callbacks"].items() if key.startswith("BestCheckpoint")]
    moved = BestCheckpoint(folder=str(tmp_path / "moved" / "checkpoints"))
    moved.load_state_dict(state)
    assert float(moved.best_model_score) == metrics(pretrained[0])["best"]["value"]
    assert moved.best_model_path == os.path.realpath(tmp_path / "moved" / "checkpoints" / "best.ckpt")
    assert list(moved.best_k_models) == [moved.best_model_path]
    empty = BestCheckpoint(folder=str(tmp_path / "empty"))
    with pytest.warns(UserWarning, match="dirpath has changed"):
        empty.load_state_dict(state)
    assert not empty.best_k_models


def test_fine_tuning_starts_from_the_pretrained_backbone(command: Any, pretrained: Any, tables: Path) -> None:
    """With next to no learning rate the backbone stays as it was; the head is new and has the data's classes."""
    line = f"genomics fit --config genomics/quickstart_finetune {TINY} --model.pretrained {pretrained[0]}/model"
    line += f" --data.dataset null --data.folder {tables} --trainer.max_steps 1 --model.optimizer.lr 1e-30"
    outcome = command(f"{line} --output tuned")
    assert outcome.status == 0, outcome.err
    before, after = (
        weights_of(pretrained[0] / "checkpoints" / "best.ckpt"),
        weights_of(Path("tuned/checkpoints/last.ckpt")),
    )
    backbone = [name for name in after if not name.startswith("head.")]
    assert len(backbone) > 10
    assert set(backbone) <= set(before)
    for name in backbone:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-12)
    model = longscan.from_pretrained("tuned/model")
    assert model.config.class_names == ("at", "gc")
    assert model(torch.randint(7, 11, (3, 20))).shape == (3, 2)
    # The checkpoint stands alone: the pretrained model is not asked for again, nor its tokenizer and its head.
    config = Path("tuned/config.yaml")
    config.write_text(config.read_text().replace(f"{pretrained[0]}/model", "gone"))
    outcome = command(f"genomics test --ckpt_path tuned/checkpoints/last.ckpt {FAST}")
    assert outcome.status == 0, outcome.err


def test_a_configuration_by_path_and_values_on_the_line(command: Any, tables: Path) -> None:
    """A file of one's own; dotted options reach the optimiser, the tokenizer and the data."""
    config = {
        "model": {"class_path": "SequenceClassification", "init_args": {"options": {"d_model": 16, "n_layer": 1}}},
        "data": {"class_path": "SequenceTableDataModule", "init_args": {"folder": str(tables)}},
        "trainer": {"max_steps": 2, "enable_progress_bar": False, "accelerator": "cpu"},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    options = "--model.optimizer.lr 0.0125 --data.tokenizer.special_tokens=cls_sep --data.batch_size=4"
    outcome = command(f"genomics fit --config mine.yaml --output run {options} --trainer.max_steps 1")
    assert outcome.status == 0, outcome.err
    stored = yaml.safe_load(Path("run/config.yaml").read_text())
    assert stored["model"]["class_path"] == "longscan.genomics.tasks.SequenceClassification"
    assert stored["model"]["init_args"]["optimizer"]["lr"] == 0.0125
    assert stored["data"]["init_args"]["batch_size"] == 4
    assert longscan.from_pretrained("run/model").config.tokenizer["special_tokens"] == "cls_sep"
    assert metrics(Path("run"))["steps"] == 1
    # The run's own configuration serves as one; runs are named by configuration and time where no folder is given.
    assert command("genomics fit --config run/config.yaml").status == 0
    (folder,) = Path("runs/config").iterdir()
    assert (folder / "model" / "config.json").is_file()


def test_causal_pretraining_of_hyenadna(command: Any) -> None:
    """A shrunk HyenaDNA on windows with a trailing [SEP], filters as long as the input."""
    options = "{d_model: 16, n_layer: 1, max_length: 66, filter_order: 8}"
    line = f"genomics fit --config genomics/hyenadna_hg38 {TINY} --model.options '{options}' --output run"
    line += " --data.fasta embedded:yeast1 --data.bed null --data.split blocks --data.block_size 20000 --data.seqlen 64"
    outcome = command(f"{line} --data.num_workers 0 --trainer.precision 32 --trainer.max_steps 2")
    assert outcome.status == 0, outcome.err
    model = longscan.from_pretrained("run/model")
    assert type(model).__name__ == "HyenaDNA"
    assert model.config.tokenizer["case"] == "keep"
    assert model(torch.randint(7, 11, (1, 66))).shape == (1, 66, 16)
    assert metrics(Path("run"))["metrics"]["val/perplexity"] < 16.5


def test_a_hybrid_described_by_data_trains(command: Any) -> None:
    """The README's stack of Mamba, gated MLP and windowed attention, on DNA."""
    layers = "[mamba, gated_mlp, {name: attention, window: 16}, gated_mlp]"
    options = f"{{vocab_size: 12, pad_vocab_size_multiple: 8, backbone: {{d_model: 16, layers: {layers}}}}}"
    line = f"genomics fit --config genomics/quickstart {TINY} --model.model LanguageModel --model.options '{options}'"
    line += " --data.fasta embedded:yeast1 --data.objective causal --data.seqlen 64 --trainer.max_steps 2 --output run"
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    model = longscan.from_pretrained("run/model")
    parts = [layer.channel_mixer if layer.mixer is None else layer.mixer for layer in model.backbone.layers]
    assert [type(part).__name__ for part in parts] == ["Mamba", "GatedMLP", "Attention", "GatedMLP"]
    assert model.backbone.causal


# validate and test


def test_validate_and_test(command: Any, classifier: Path) -> None:
    """Both test sets are named; the results of ``fit`` stay; last, best and a path all work."""
    shutil.copytree(classifier, "run")
    fitted = Path("run/metrics.json").read_bytes()
    config = f"--config run/config.yaml {FAST}"
    outcome = command(f"genomics validate {config} --output run --ckpt_path best")
    assert outcome.status == 0, outcome.err
    best = json.loads(fitted)["best"]["value"]
    assert metrics(Path("run/validate"))["metrics"]["val/mcc"] == pytest.approx(best)
    for checkpoint in ("last", "best", "run/checkpoints/best.ckpt"):
        outcome = command(f"genomics test {config} --output run --ckpt_path {checkpoint}")
        assert outcome.status == 0, outcome.err
        assert outcome.err == ""
        names = {name.rpartition("/")[0] for name in metrics(Path("run/test"))["metrics"]}
        assert names == {"test/test", "test/test_far"}
    tested = metrics(Path("run/test"))["metrics"]
    assert tested["test/test/accuracy"] >= 0.85  # AT-rich against GC-rich: any model that learned can
    assert "test/test_far/mcc" in outcome.out
    assert Path("run/test/confusion_test_test_far.png").is_file()
    assert Path("run/metrics.json").read_bytes() == fitted


def test_a_pretrained_classifier_is_tested_without_training_data(command: Any, classifier: Path, tables: Path) -> None:
    """The class names are given; the numbers are those of the checkpoint it was exported from."""
    line = f"genomics test --config genomics/predict --model.pretrained {classifier}/model {FAST}"
    outcome = command(f"{line} --data.test_file {tables}/test.tsv --data.class_names [at,gc] --output tested")
    assert outcome.status == 0, outcome.err
    outcome = command(f"genomics test --ckpt_path {classifier}/checkpoints/best.ckpt --output both {FAST}")
    assert outcome.status == 0, outcome.err
    alone, both = metrics(Path("tested"))["metrics"], metrics(Path("both"))["metrics"]
    assert alone["test/accuracy"] == both["test/test/accuracy"]
    assert alone["test/loss"] == pytest.approx(both["test/test/loss"], abs=1e-5)


# predict

RECORDS = {
    "one": "ATTTATTAATCGATATATTTTAAATACGATTTAA",
    "two": "GCGCGGCCGCNNGCGCCCG",
    "three": "A",
    "four": "acgtacgtacgg",
}
FASTA = "".join(f">{name} described\n{bases[:17]}\n{bases[17:]}\n" for name, bases in RECORDS.items())


def expected(model: Any) -> list[list[float]]:
    """Class probabilities by forward passes of one sequence each, so without padding."""
    with torch.no_grad():
        return [model(**PLAIN.encode_batch([bases])).softmax(-1)[0].tolist() for bases in RECORDS.values()]


@pytest.mark.parametrize("kind", ["fasta", "fasta.gz", "tsv", "labelled tsv.gz", "csv"])
def test_predictions_are_those_of_the_model(kind: str, command: Any, classifier: Path) -> None:
    """One row for each record, in order and by name, whatever the file; batches of sequences of unequal length."""
    model = longscan.from_pretrained(classifier / "model")
    records = list(RECORDS.items())
    if kind.startswith("fasta"):
        text = FASTA
    else:
        comma, labelled = "," if kind == "csv" else "\t", kind.startswith("labelled")
        head = ["name", "sequence"] + (["label"] if labelled else [])
        text = "".join(
            comma.join([*row, *(["gc"] if labelled else [])][: len(head)]) + "\n" for row in [head[:2], *records]
        )
        if labelled:
            text = text.replace("sequence\tgc", "sequence\tlabel")
    path = Path(f"input.{kind.split()[-1]}")
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    line = f"genomics predict --model.pretrained {classifier}/model --data.predict_file {path} --predictions out.tsv"
    outcome = command(f"{line} --data.batch_size 3 {FAST}")
    assert (outcome.status, outcome.out, outcome.err) == (0, "out.tsv\n", "")
    header, *rows = rows_of("out.tsv")
    assert header == ["name", "prediction", "probability_at", "probability_gc"]
    assert [row[0] for row in rows] == list(RECORDS)
    for wanted, (_, prediction, *columns) in zip(expected(model), rows, strict=True):
        probabilities = [float(value) for value in columns]
        assert sum(probabilities) == pytest.approx(1, abs=2e-6)
        assert probabilities == pytest.approx(wanted, abs=1e-5)
        assert prediction == ("at", "gc")[probabilities[1] > probabilities[0]]
    assert sorted(os.listdir()) == sorted([path.name, "out.tsv"])


def test_the_tokenizer_of_a_model_is_its_own(command: Any, classifier: Path, tables: Path) -> None:
    """Whatever it was trained with: nothing has to be said of it to predict and to test."""
    Path("x.fa").write_text(FASTA.upper())
    settings = "{case: keep, iupac: unk, uracil: unk, other: unk, special_tokens: cls_sep, padding_side: right}"
    fit = f"genomics fit --config {classifier}/config.yaml --output run --trainer.max_steps 1 {FAST}"
    assert command(f"{fit} --data.tokenizer '{settings}'").status == 0
    tokenizer = DNATokenizer.from_dict(yaml.safe_load(settings))
    outcome = command(
        f"genomics predict --model.pretrained run/model --data.predict_file x.fa --predictions o.tsv {FAST}"
    )
    assert outcome.status == 0, outcome.err
    model = longscan.from_pretrained("run/model")
    for bases, row in zip(RECORDS.values(), rows_of("o.tsv")[1:], strict=True):
        with torch.no_grad():
            wanted = model(**tokenizer.encode_batch([bases.upper()])).softmax(-1)[0].tolist()
        assert [float(value) for value in row[2:]] == pytest.approx(wanted, abs=1e-5)
    line = (
        f"genomics test --config genomics/predict --data.test_file {tables}/test.tsv --data.class_names [at,gc] {FAST}"
    )
    outcome = command(f"genomics test --ckpt_path run/checkpoints/best.ckpt --output both {FAST}")
    assert outcome.status == 0, outcome.err
    loss = metrics(Path("both"))["metrics"]["test/test/loss"]
    options = "--model.options '{d_model: 16, n_layer: 1}'"
    for source in ("--model.pretrained run/model", f"--ckpt_path run/checkpoints/best.ckpt {options}"):
        outcome = command(f"{line} {source} --output tested")
        assert outcome.status == 0, outcome.err
        assert metrics(Path("tested"))["metrics"]["test/loss"] == pytest.approx(loss, abs=1e-5)


def test_predict_with_a_checkpoint_replaces_an_earlier_table(command: Any, classifier: Path) -> None:
    """The configuration of the run is found beside the checkpoint; the default table lies in the run."""
    Path("x.fa").write_text(FASTA)
    Path("out.tsv").write_text("earlier")
    checkpoint = classifier / "checkpoints" / "best.ckpt"
    outcome = command(
        f"genomics predict --ckpt_path {checkpoint} --data.predict_file x.fa --predictions out.tsv {FAST}"
    )
    assert outcome.status == 0, outcome.err
    model = longscan.from_pretrained(classifier / "model")
    for wanted, row in zip(expected(model), rows_of("out.tsv")[1:], strict=True):
        assert [float(value) for value in row[2:]] == pytest.approx(wanted, abs=1e-5)
    shutil.copytree(classifier, "run")
    outcome = command(
        f"genomics predict --output run --ckpt_path last --config run/config.yaml --data.predict_file x.fa {FAST}"
    )
    assert (outcome.status, outcome.out) == (0, "run/predict/predictions.tsv\n"), outcome.err
    assert len(rows_of("run/predict/predictions.tsv")) == 5


def test_predict_with_a_checkpoint_and_no_training_data(command: Any, classifier: Path) -> None:
    """The class names come from the checkpoint."""
    Path("x.fa").write_text(FASTA)
    line = "genomics predict --config genomics/predict --model.options '{d_model: 16, n_layer: 1, pooling: center}'"
    line += f" {FAST} --ckpt_path {classifier}/checkpoints/best.ckpt --data.predict_file x.fa --predictions out.tsv"
    outcome = command(line)
    assert outcome.status == 0, outcome.err
    assert rows_of("out.tsv")[0][2:] == ["probability_at", "probability_gc"]


def test_the_packaged_splice_model_offline(tmp_path: Path) -> None:
    """The README's line, as a user types it, with no network: at least 85 % of 50 packaged test windows are right."""
    with gzip.open(dataset_path("splice_sites_200") / "test.tsv.gz", "rt") as stream:
        header, *rows = [line.rstrip("\n").split("\t") for line, _ in zip(stream, range(51), strict=False)]
    bases, labels = header.index("sequence"), header.index("label")
    (tmp_path / "x.fa").write_text("".join(f">site{i}\n{row[bases]}\n" for i, row in enumerate(rows)))
    line = (
        "-m longscan genomics predict --model.pretrained splice_caduceus --data.predict_file x.fa --predictions out.tsv"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    result = subprocess.run(
        [sys.executable, *shlex.split(line)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (result.returncode, result.stdout) == (0, "out.tsv\n"), result.stderr
    assert "Warning" not in result.stderr
    header, *predicted = rows_of(tmp_path / "out.tsv")
    assert header == ["name", "prediction", "probability_decoy", "probability_donor", "probability_acceptor"]
    assert [row[0] for row in predicted] == [f"site{i}" for i in range(50)]
    names = ("decoy", "donor", "acceptor")
    right = sum(row[1] == names[int(truth[labels])] for row, truth in zip(predicted, rows, strict=True))
    assert right / 50 >= 0.85


# Ctrl-C


def test_interrupted_from_the_keyboard(tmp_path: Path, command: Any) -> None:
    """The real program: status 130, a checkpoint, and a command that goes on from it."""
    line = f"genomics fit --config genomics/quickstart --output run {TINY} --data.fasta embedded:yeast1"
    words = shlex.split(f"{line} --trainer.max_steps 3000 --checkpoint.every_n_steps 1")
    process = subprocess.Popen(
        [sys.executable, "-m", "longscan", *words],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    try:
        while not last.exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, error
    told = [re.split("[:;]", text)[0] for text in error.splitlines() if text]
    assert told == ["train", "val", "interrupted", "saved run/checkpoints/last.ckpt", "resume with"], error
    step = torch.load(last, weights_only=True)["global_step"]
    assert 1 <= step < 3000
    (resume,) = re.findall(r"^resume with: longscan (.*)$", error, flags=re.MULTILINE)
    outcome = command(f"{resume} --trainer.max_steps {step + 2}")
    assert outcome.status == 0, outcome.err
    assert metrics(tmp_path / "run")["steps"] == step + 2


def test_interrupted_while_predicting(command: Any, classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 130, one line, no table, and an earlier one stays."""
    from longscan.core.training.callbacks import PredictionTable

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PredictionTable, "on_predict_batch_end", interrupt)
    previous = signal.getsignal(signal.SIGINT)
    Path("x.fa").write_text(FASTA)
    Path("out.tsv").write_text("earlier")
    line = f"genomics predict --model.pretrained {classifier}/model --data.predict_file x.fa --predictions out.tsv"
    try:
        outcome = command(f"{line} {FAST}")
    finally:
        signal.signal(signal.SIGINT, previous)  # Lightning shuts its ears to it
    assert (outcome.status, outcome.err) == (130, "longscan: interrupted\n")
    assert Path("out.tsv").read_text() == "earlier"
    assert sorted(os.listdir()) == ["out.tsv", "x.fa"]
