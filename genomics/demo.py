"""The DNA part of ``longscan demo``: pretrain, fine-tune, compare with a baseline measured here, predict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.demo import read_metrics, run_step
from ..core.report import Section
from .tokenizer import A, T

_NUCLEOTIDES = range(A, T + 1)


def run(output: Path) -> list[Section]:
    """Run the quick-start configurations in ``output`` and return what the report shows.

    Raises:
        UserError: if a step fails; what went wrong was printed by it.
    """
    from . import training  # which loads lightning

    pretrained, tuned = output / "pretrain", output / "finetune"
    print("1/4  pretraining a small Caduceus on Drosophila chromosome 4 and yeast chromosome I")
    run_step(training.fit, "genomics fit", ["--config", "genomics/quickstart", "--output", str(pretrained)])
    print("2/4  fine-tuning it to find splice sites in Arabidopsis")
    options = ["--config", "genomics/quickstart_finetune", "--output", str(tuned)]
    run_step(training.fit, "genomics fit", [*options, "--model.pretrained", str(pretrained / "model")])
    best = tuned / "checkpoints" / "best.ckpt"
    print("3/4  testing it, and a k-mer logistic regression on the same examples")
    run_step(training.test, "genomics test", ["--ckpt_path", str(best)])
    baseline, perplexity = _kmer_baseline(), _composition_perplexity()
    print("4/4  predicting the classes of a FASTA file")
    sequences = output / "sequences.fa"
    _write_fasta(sequences)
    predictions = output / "predictions.tsv"
    predict = ["--model.pretrained", str(tuned / "model"), "--data.predict_file", str(sequences)]
    run_step(training.predict, "genomics predict", [*predict, "--predictions", str(predictions)])

    before, tested = read_metrics(pretrained), read_metrics(tuned / "test")
    longscan = "uv run longscan" if "UV" in os.environ else "longscan"  # as it was started
    return [
        Section(
            "DNA: pretraining",
            ["A small Caduceus learned to fill in masked bases of a fly and a yeast chromosome."],
            ("on validation windows", "perplexity of masked bases"),
            [
                ("base composition alone", f"{perplexity:.3f}"),
                ("Caduceus", f"{before['val/perplexity']:.3f}"),
            ],
            [(pretrained / "learning_curves.png", "Pretraining")],
        ),
        Section(
            "DNA: splice sites",
            [
                "Donor, acceptor, or a decoy with the same dinucleotide at the same place. Both were trained on the "
                "same 6,000 windows and tested on the same 6,000 of other parts of the chromosome; a related species "
                "shows how well it carries over."
            ],
            ("test set", "k-mer logistic regression", "Caduceus", "Caduceus MCC"),
            [
                (
                    {"test": "Arabidopsis thaliana", "test_arenosa": "Arabidopsis arenosa"}[name],
                    f"{baseline[name]:.3f}",
                    f"{tested[f'test/{name}/accuracy']:.3f}",
                    f"{tested[f'test/{name}/mcc']:.3f}",
                )
                for name in ("test", "test_arenosa")
            ],
            [
                (tuned / "learning_curves.png", "Fine-tuning"),
                *((picture, "Confusion matrix") for picture in sorted((tuned / "test").glob("*confusion*.png"))),
            ],
            [
                "# go on with",
                f"{longscan} genomics predict {' '.join(predict)} --predictions {predictions}",
                f"{longscan} genomics fit --config genomics/splice --output runs/splice    # the full recipe",
                f"{longscan} genomics fit --config genomics/splice --data.dataset null --data.folder YOUR_TABLES",
                f"{longscan} models",
            ],
        ),
    ]


def _data(config: str) -> Any:
    """Return the data module of a packaged configuration, as the training verbs build it."""
    import yaml

    from ..core.training.run_files import find_config
    from . import data
    from .tokenizer import DNATokenizer

    described = yaml.safe_load(find_config(config, "genomics")[1].read_text())["data"]
    options = dict(described["init_args"])
    if "tokenizer" in options:
        options["tokenizer"] = DNATokenizer(**options["tokenizer"])
    return getattr(data, described["class_path"])(**options)


def _bases(dataset: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the sequences of a data set as bases 0 … 3 (others negative), and their classes."""
    sequences = [np.asarray(dataset.table[i], dtype=np.int64) - A for i in range(len(dataset))]
    return [np.where(s < len(_NUCLEOTIDES), s, -1) for s in sequences], dataset.targets


def _kmer_baseline() -> dict[str, float]:
    """Return the accuracy of the k-mer logistic regression on each test set, trained as the model was."""
    from .baselines import kmer_logistic_regression

    module = _data("genomics/quickstart_finetune")
    module.setup("fit")
    module.setup("test")
    names = list(module.test_set)
    tests = {name: _bases(module.test_set[name]) for name in names}
    everything = [sequence for name in names for sequence in tests[name][0]]
    predicted = kmer_logistic_regression(*_bases(module.train_set), *_bases(module.val_set), everything)
    accuracy, start = {}, 0
    for name in names:
        labels = tests[name][1]
        accuracy[name] = float((predicted[start : start + len(labels)] == labels).mean())
        start += len(labels)
    return accuracy


def _composition_perplexity() -> float:
    """Return the perplexity of the validation windows under the training windows' base composition."""
    from .baselines import markov_perplexity

    module = _data("genomics/quickstart")
    module.setup("fit")

    def windows(dataset: Any) -> Sequence[np.ndarray]:
        samples = (dataset[i] for i in range(len(dataset)))
        whole = (np.where(s["labels"] >= 0, s["labels"], s["input_ids"]) for s in samples)
        return [np.where((ids >= A) & (ids <= T), ids - A, -1) for ids in whole]

    return markov_perplexity(list(windows(module.train_set)), list(windows(module.val_set)), order=0)


def _write_fasta(path: Path, count: int = 9) -> None:
    """Write the first test sequences, named by what they are."""
    from ..core.files import replacing

    module = _data("genomics/quickstart_finetune")
    module.setup("test")
    dataset, names = module.test_set["test"], module.class_names
    with replacing(path) as temporary:
        temporary.write_text(
            "".join(
                f">{names[dataset.targets[i]]}_{i + 1}\n{module.tokenizer.decode(dataset.table[i].astype(int))}\n"
                for i in range(count)
            )
        )
