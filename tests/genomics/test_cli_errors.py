"""Mistakes on the command line of the DNA domain: one line that says what is wrong and what to do."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

FAST = "--trainer.accelerator cpu --trainer.enable_progress_bar false"
TINY = "--model.options '{d_model: 16, n_layer: 1}' --data.batch_size 8 --trainer.limit_val_batches 2 " + FAST

FASTA = "".join(f">chr{n}\n{'ACGTTGCA' * 20}\n{'GGCCAATT' * 20}\n" for n in (1, 2))

Refusal = Callable[..., str]


@pytest.fixture
def refused(command: Any) -> Refusal:
    """Runs a command that must fail, in a folder with good input files; returns the message."""
    Path("good.fa").write_text(FASTA)
    Path("good.tsv").write_text("sequence\tlabel\n" + "ACGTACGTAC\ta\nGGGTTTACCC\tb\n" * 8)

    def refuse(line: str, *parts: str, after: tuple[str, ...] = ()) -> str:
        before = _tree()
        outcome = command(line)
        assert outcome.status == 2, (outcome.status, outcome.out, outcome.err)
        *told, message = outcome.err.splitlines()
        assert [text.split(":")[0] for text in told] == list(after), outcome.err
        assert message.startswith("longscan: error: ")
        assert len(message) < 600
        for part in parts:
            assert part in message, message
        # A run may have begun (folder, configuration, logs); no result was left, and no file with a temporary name.
        left = {path for path in _tree() - before if not _begun(path)}
        assert not left, left
        return message

    return refuse


def _tree() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def _begun(path: str) -> bool:
    return path.endswith((".fai", "config.yaml", "hparams.yaml")) or Path(path).name.startswith("events.")


# FASTA

PREDICT = f"genomics predict --model.pretrained splice_caduceus --predictions out.tsv {FAST} --data.predict_file"
PRETRAIN = f"genomics fit --config genomics/quickstart --output run {TINY} --data.seqlen 40 --data.fasta"


def bad_fasta(kind: str) -> str:
    """Write a FASTA file with something wrong, and return its name."""
    if kind == "truncated gzip":
        Path("bad.fa.gz").write_bytes(gzip.compress(FASTA.encode() + os.urandom(4000).hex().encode())[:700])
        return "bad.fa.gz"
    text = {
        "empty": "",
        "not FASTA": "sequence\nACGT\n",
        "illegal character": FASTA + ">chr3\nACGT\nACJT\n",
        "no sequence": ">chr1\n>chr2\nACGT\n",
    }[kind]
    Path("bad.fa").write_text(text)
    return "bad.fa"


BAD_FASTA = {
    "empty": ("bad.fa: the file is empty; copy or download it again",),
    "truncated gzip": ("bad.fa.gz: the gzip file is truncated; copy or download it again",),
    "not FASTA": ("bad.fa", "not FASTA"),
    "no sequence": ("bad.fa", "chr1", "sequence"),
}


@pytest.mark.parametrize("kind", BAD_FASTA)
@pytest.mark.parametrize("line", [PREDICT, PRETRAIN], ids=["predict", "fit"])
def test_fasta_files(kind: str, line: str, refused: Refusal) -> None:
    Path("out.tsv").write_text("earlier")
    refused(f"{line} {bad_fasta(kind)}", *BAD_FASTA[kind])
    assert Path("out.tsv").read_text() == "earlier"


def test_illegal_characters_are_placed(refused: Refusal) -> None:
    """The record and the place in it are named."""
    name = bad_fasta("illegal character")
    refused(f"{PREDICT} {name}", "bad.fa", "'chr3'", "'J'", "7")
    refused(f"{PRETRAIN} {name}", "bad.fa", "chr3", "'J'")


def test_fasta_paths(refused: Refusal) -> None:
    refused(f"{PREDICT} gone.fa", "gone.fa: no such file; check the path")
    refused(f"{PREDICT} .", "is a folder; name a file in it")
    refused(f"{PRETRAIN} embedded:yeast", "unknown embedded genome 'embedded:yeast' (nearest: embedded:yeast1")
    refused(f"{PRETRAIN} good.fa --data.block_size 1000", "the val split of good.fa is empty", "lower block_size")
    refused(f"{PRETRAIN} good.fa --data.block_size 30", "seqlen=40 does not fit in block_size=30; raise block_size")


# BED

BAD_BED = {
    "chr1\t0\t400\ttrain": "bad.bed:2: end 400 lies beyond chr1, which has 320 bases; is it another assembly?",
    "chrX\t0\t100\ttrain": "bad.bed:2: contig 'chrX' is not in the FASTA (nearest: chr2, chr1)",
    "chr2\t50\t50\ttrain": "bad.bed:2: start 50 is not before end 50; BED intervals are 0-based, half-open",
    "chr2\t60\t50\ttrain": "bad.bed:2: start 60 is not before end 50",
    "chr2 10 50 train": "bad.bed:2: 1 tab-separated column(s), BED has at least 3",
    "chr2\tten\t50\ttrain": "bad.bed:2: start 'ten' is not a whole number from 0; correct it",
    "chr2\t10\t50\tpractice": "bad.bed:2: column 4 is 'practice', expected train, valid or test",
}


@pytest.mark.parametrize("row", BAD_BED)
def test_bed_files(row: str, refused: Refusal) -> None:
    Path("bad.bed").write_text(f"chr1\t0\t40\ttrain\n{row}\n")
    refused(f"{PRETRAIN} good.fa --data.bed bad.bed", BAD_BED[row])


def test_empty_bed(refused: Refusal) -> None:
    Path("bad.bed").write_text("# nothing\n")
    refused(f"{PRETRAIN} good.fa --data.bed bad.bed", "bad.bed: holds no interval")


# Tables

CLASSIFY = f"genomics fit --config genomics/quickstart_finetune --output run {TINY} --data.dataset null"

BAD_TABLES = {
    "seq\tlabel\nACGT\ta\n": ":1: no column 'sequence'; there are: seq, label; set sequence_column",
    "sequence\tclass\nACGT\ta\n": ":1: no column 'label'; there are: sequence, class; set label_column",
    "sequence\tlabel\nACGT\ta\n\tb\n": ":3: the sequence is empty; fill in column 'sequence'",
    "sequence\tlabel\nACGT\ta\nACGT\t\n": ":3: the label is empty",
    "sequence\tlabel\nACGT\ta\nACGT\n": ":3: 1 column(s), the header has 2; correct or remove the row",
    "sequence\tlabel\nACGT\ta\nAC*T\tb\n": ":3: '*' at position 3 is not A, C, G, T or N",
    "sequence\tlabel\n": "has a header but no row; is it the right file?",
    "sequence\tlabel\nACGT\ta\nACGA\ta\n": "only one class, 'a'; classification needs at least two",
    "": "the file is empty",
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_tables(text: str, refused: Refusal) -> None:
    Path("bad.tsv").write_text(text)
    refused(f"{CLASSIFY} --data.train_file bad.tsv", "bad.tsv", BAD_TABLES[text])


def test_labels_must_be_known(refused: Refusal) -> None:
    """A label that training has not seen, in any other table."""
    Path("bad.tsv").write_text("sequence\tlabel\nACGT\ta\nACGT\tc\n")
    told = "bad.tsv:3: label 'c' is not among the labels of the training file: a, b"
    refused(f"{CLASSIFY} --data.train_file good.tsv --data.val_file bad.tsv", told)
    line = f"genomics predict --config genomics/predict --model.pretrained splice_caduceus {FAST} --predictions out.tsv"
    refused(f"{line} --data.train_file good.tsv --data.predict_file bad.tsv", told)


def test_table_names_and_data_sets(refused: Refusal) -> None:
    shutil.copy("good.tsv", "good.xls")
    refused(f"{CLASSIFY} --data.train_file good.xls", "good.xls: the extension '.xls'", "name the file .tsv or .csv")
    refused(f"{CLASSIFY} --data.folder gone", "gone: no such folder; check the path")
    refused(f"{CLASSIFY} --data.folder .", "has no table named train, val or test")
    refused(f"{CLASSIFY}", "no data: give dataset, folder, train_file")
    refused(
        CLASSIFY.replace("dataset null", "dataset splice_sites"), "unknown dataset 'splice_sites'", "splice_sites_200"
    )
    refused("genomics predict --model.pretrained splice_caduceus " + FAST, "give dataset, folder", "predict_file")


def test_sequences_too_long_for_the_model(refused: Refusal) -> None:
    """HyenaDNA's filters end at max_length; the data module's own limit names the row."""
    options = "{d_model: 16, n_layer: 1, max_length: 8, filter_order: 8}"
    line = f"{CLASSIFY} --data.train_file good.tsv --model.model hyenadna_tiny_1k --model.options '{options}'"
    after = ("no validation file",)
    told = ("more than this model takes at once, whose filters end at 8 (max_length)", "made for longer sequences")
    record = "good.tsv:5: record '4': 10 tokens, special ones included, are 2"  # the first that is not held out
    refused(line, record, *told, "data.max_length and data.long_sequences", after=after)
    refused(f"{line} --data.max_length 20", record, *told, after=after)
    refused(f"{line} --data.max_length 8", "good.tsv:2: the sequence has 10 bases but max_length=8", "long_sequences")
    for cut in ("--data.max_length 9 --data.long_sequences first", "--data.max_length 9 --data.padding max_length"):
        line = line.replace("good.tsv", "short.tsv") if "padding" in cut else line
        Path("short.tsv").write_text("sequence\tlabel\n" + "ACG\ta\nGGG\tb\n" * 8)
        refused(f"{line} {cut}", "data.max_length=9: 9 tokens, special ones included, are 1", *told, after=after)
    pretrain = PRETRAIN.replace(TINY, f"--model.model hyenadna_tiny_1k --model.options '{options}' {FAST}")
    pretrain = pretrain.replace("--data.seqlen 40", "--data.seqlen 10 --data.objective causal --data.block_size 20")
    refused(f"{pretrain} good.fa", "data.seqlen=10: 10 tokens", "are 2 ", *told, after=("train", "val"))


def test_sequences_of_nothing_but_n(refused: Refusal) -> None:
    """In a table to train on, and in a FASTA to predict."""
    Path("n.fa").write_text(">a\nACGT\n>b c\nNNNNNNNNNN\n")
    refused(f"{PREDICT} n.fa", "n.fa:3: record 'b': the sequence holds no A, C, G or T", "remove it")
    Path("n.tsv").write_text("sequence\tlabel\nACGT\ta\nNNN\tb\n")
    refused(f"{CLASSIFY} --data.train_file n.tsv", "n.tsv:3: record '2': the sequence holds no A, C, G or T")


# Models and checkpoints

FINETUNE = f"{CLASSIFY} --data.train_file good.tsv"


def test_unknown_names(refused: Refusal) -> None:
    held_out = ("no validation file",)
    refused(
        f"{FINETUNE} --model.model caduceus_ph_1k_d119",
        "'caduceus_ph_1k_d119' is unknown",
        "caduceus_ph_1k_d118",
        after=held_out,
    )
    refused(
        f"{FINETUNE} --model.pretrained splice_caduceu",
        "'splice_caduceu' is unknown; nearest: splice_caduceus",
        after=held_out,
    )
    refused(
        f"{FINETUNE} --model.pretrained xyz",
        "'xyz' is unknown; known: ",
        "more (see `longscan models`)",
        after=held_out,
    )
    refused(f"{FINETUNE} --model.pretrained ./gone", "gone: there is no such file or folder", after=held_out)
    refused(f"{FINETUNE} --model.pretrained hyenadna", "'hyenadna' is unknown", after=held_out)
    refused(
        f"{FINETUNE} --model.options '{{n_layers: 2}}'",
        "CaduceusConfig has no option 'n_layers'; nearest: n_layer",
        after=held_out,
    )
    refused(
        "genomics fit --config genomics/quikstart", "--config genomics/quikstart: neither a file", "genomics/quickstart"
    )
    refused("genomics fti", "command 'fti' is unknown; nearest: fit")
    refused("genomic fit", "command 'genomic' is unknown; nearest: genomics")


def test_options_and_values(refused: Refusal) -> None:
    refused(f"{FINETUNE} --data.batchsize 3", "batchsize")
    refused(f"{FINETUNE} --model.lr 3", "lr")
    refused(f"{FINETUNE} --turbo", "--turbo")
    refused(f"{FINETUNE} --trainer.max_steps many", "trainer.max_steps", "int", "many")
    refused(f"{FINETUNE} --data.limit_train few", "limit_train", "int", "few")
    refused(f"{FINETUNE} --data.limit_train 0", "limit_train=0 must be at least 1")
    refused(f"{FINETUNE} --data.tokenizer.case lower", "case", "lower", "upper")
    refused(f"{FINETUNE} --model.label_smoothing 1", "label_smoothing is 1.0; expected 0 ≤ p < 1")
    refused(f"{FINETUNE} --checkpoint.mode most", "mode", "most")
    refused(f"{FINETUNE} --data SequenceTable", "SequenceTable")
    refused("genomics fit", "data, model", "--config NAME")


def test_objective_and_model_must_agree(refused: Refusal) -> None:
    """Caduceus sees both sides, so the next base is in its input."""
    line = f"{PRETRAIN.replace('--data.seqlen 40', '--data.seqlen 200')} embedded:yeast1 --data.objective causal"
    refused(line, "objective 'causal' with Caduceus", "set data.objective to 'masked'", after=("train", "val"))


def test_a_language_model_does_not_predict_classes(refused: Refusal, pretrained: Any) -> None:
    line = f"genomics predict --model.pretrained {pretrained[0]}/model --data.predict_file good.fa {FAST}"
    refused(f"{line} --data.tokenizer.special_tokens sep", "has no classification head; fine-tune it first (`fit`)")
    refused(
        f"genomics predict --config genomics/predict --data.predict_file good.fa {FAST}", "no weights: give model.pret"
    )


def test_another_tokenizer_is_refused(refused: Refusal, classifier: Path) -> None:
    """Weights were trained on ids that another tokenizer does not give: for a model, a checkpoint and a resumption."""
    told = ("was trained with another tokenizer; set data.tokenizer to have {'special_tokens': 'none'}",)
    other = "--data.tokenizer.special_tokens cls_sep"
    refused(f"genomics predict --model.pretrained {classifier}/model --data.predict_file good.fa {other} {FAST}", *told)
    checkpoint = f"--ckpt_path {classifier}/checkpoints/last.ckpt"
    refused(f"genomics predict {checkpoint} --data.predict_file good.fa --predictions out.tsv {other} {FAST}", *told)
    refused(f"genomics test {checkpoint} {other} {FAST} --output tested", *told)
    refused(f"genomics fit {checkpoint} {other} {FAST} --output more --trainer.max_epochs 9", *told)


def test_other_classes_are_refused(refused: Refusal, classifier: Path) -> None:
    """In other order they would be told apart wrongly, so that is refused too."""
    Path("test.tsv").write_text("sequence\tlabel\nACGTACGT\tat\nACGT\tgc\n")
    line = f"genomics test --config genomics/predict --model.pretrained {classifier}/model {FAST}"
    line += " --data.test_file test.tsv"
    refused(f"{line} --data.class_names [gc,at]", "tells at, gc apart, the data has the classes gc, at")
    refused(f"{line} --data.class_names [at,gc,n]", "tells at, gc apart, the data has the classes at, gc, n")
    refused(line, "the classes are unknown without training data; give train_file or class_names")
    checkpoint = f"--ckpt_path {classifier}/checkpoints/last.ckpt --data.folder null --data.train_file good.tsv"
    refused(
        f"genomics predict {checkpoint} --data.predict_file good.fa --predictions out.tsv {FAST}",
        "apart, the data has the classes a, b",
    )
    refused(
        f"genomics fit {checkpoint} {FAST} --output more",
        "tells at, gc apart, the data has the classes a, b",
        after=("no validation file",),
    )


class Code:
    """Pickles as a call of ``os.mkdir``."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("pwned",)


def bad_checkpoint(kind: str, good: Path) -> Path:
    """Write a checkpoint with something wrong; ``good`` is a whole one."""
    path = Path("bad.ckpt")
    whole = torch.load(good, weights_only=True)
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:5000])
    elif kind == "code":
        torch.save(whole | {"extra": Code()}, path)
    elif kind == "missing keys":
        del whole["state_dict"]["model.embedding.weight"]
        torch.save(whole, path)
    elif kind == "text":
        path.write_text("not weights\n")
    elif kind == "no tensors":
        torch.save({"state_dict": {}}, path)
    return path


PRETRAINED_ERRORS = {
    "truncated": ("bad.ckpt: is cut short or damaged", "fetch it again"),
    "code": ("bad.ckpt: refused, since it holds pickled code", "mkdir", "safetensors"),
    "missing keys": ("bad.ckpt: its weights do not fit Caduceus: missing: embedding.weight",),
    "text": ("bad.ckpt",),
    "no tensors": ("bad.ckpt: holds no weights",),
}
CKPT_PATH_ERRORS = {
    "truncated": ("bad.ckpt: is cut short or damaged", "fetch it again"),
    "code": ("bad.ckpt: refused, since it holds pickled code", "mkdir"),
    "missing keys": ("bad.ckpt is of another model", "embedding.weight"),
    "text": ("bad.ckpt: is no torch checkpoint or is damaged",),
    "no tensors": ("bad.ckpt lacks pytorch-lightning_version",),
}


@pytest.mark.parametrize("kind", PRETRAINED_ERRORS)
def test_pretrained_files(kind: str, refused: Refusal, classifier: Path) -> None:
    bad = bad_checkpoint(kind, classifier / "checkpoints" / "best.ckpt")
    refused(f"{PREDICT} good.fa --model.pretrained {bad}", *PRETRAINED_ERRORS[kind])
    refused(f"{FINETUNE} --model.pretrained {bad}", *PRETRAINED_ERRORS[kind], after=("no validation file",))
    assert not Path("pwned").exists()


@pytest.mark.parametrize("kind", CKPT_PATH_ERRORS)
def test_checkpoints(kind: str, refused: Refusal, classifier: Path) -> None:
    bad = bad_checkpoint(kind, classifier / "checkpoints" / "best.ckpt")
    config = f"--config {classifier}/config.yaml --ckpt_path {bad} {FAST}"
    refused(f"genomics predict {config} --data.predict_file good.fa --predictions out.tsv", *CKPT_PATH_ERRORS[kind])
    refused(f"genomics fit {config} --output run --trainer.max_epochs 9", *CKPT_PATH_ERRORS[kind])
    assert not Path("pwned").exists()


def test_weights_of_another_model(refused: Refusal, classifier: Path, pretrained: Any) -> None:
    """A checkpoint of another architecture or size, and a model folder whose tensors are not those of its config."""
    config = f"--config {classifier}/config.yaml {FAST}"
    best = classifier / "checkpoints" / "best.ckpt"
    refused(
        f"genomics test {config} --ckpt_path {best} --model.options.d_model 24 --output tested",
        "best.ckpt is of another model than the configuration describes",
        "size mismatch",
    )
    refused(
        f"genomics test {config} --ckpt_path {best} --model.model hyenadna_tiny_1k --output tested",
        "best.ckpt is of another model than the configuration describes",
    )
    # The classes of a language model are none.
    language = pretrained[0] / "checkpoints" / "best.ckpt"
    refused(f"genomics fit {config} --ckpt_path {language} --output run", "best.ckpt")
    shutil.copytree(classifier / "model", "model")
    weights = load_file("model/model.safetensors")
    save_file({name: value for name, value in weights.items() if name != "embedding.weight"}, "model/model.safetensors")
    refused(
        f"{PREDICT} good.fa --model.pretrained model",
        "model: its weights do not fit Caduceus: missing: embedding.weight",
    )
    save_file(weights | {"embedding.weight": torch.zeros(3, 3)}, "model/model.safetensors")
    refused(f"{PREDICT} good.fa --model.pretrained model", "misshapen: embedding.weight is (3, 3), expected (16, 16)")
    save_file({"conv.weight": torch.zeros(3)}, "model/other.safetensors")
    refused(f"{PREDICT} good.fa --model.pretrained model/other.safetensors", "other.safetensors")


# Where results go


def test_places_that_cannot_be_written(refused: Refusal, classifier: Path) -> None:
    """Below a regular file, which even root cannot make a folder of."""
    line = f"{FINETUNE.replace('--output run', '--output good.fa/run')}"
    refused(line, "cannot write to the output folder good.fa/run: Not a directory; choose another with --output")
    predict = f"genomics predict --model.pretrained {classifier}/model --data.predict_file good.fa {FAST} --predictions"
    refused(f"{predict} good.fa/out.tsv", "cannot write to the output folder good.fa", "with --predictions")
    Path("folder").mkdir()
    refused(f"{predict} folder", "--predictions folder: is a folder; name a file in it")


def test_a_run_is_not_overwritten(refused: Refusal, classifier: Path) -> None:
    shutil.copytree(classifier, "run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    refused(FINETUNE, "run already holds a run: resume it with --ckpt_path last, or choose another --output")
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


def test_checkpoints_that_are_not_there(refused: Refusal) -> None:
    refused(f"{FINETUNE} --ckpt_path last", "--ckpt_path last: run/checkpoints/last.ckpt does not exist")
    refused(f"{FINETUNE} --ckpt_path gone.ckpt", "--ckpt_path gone.ckpt: no such file")
    refused(
        f"genomics test --config genomics/splice --ckpt_path best {FAST}",
        "no run with a checkpoint under runs/genomics/splice",
    )
