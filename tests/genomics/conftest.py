"""The command line in this process, and two small runs that several tests look at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_runs import Outcome, run

#: Of every configuration: a model that trains in milliseconds, on one core, without a bar.
TINY = (
    "--model.options '{d_model: 16, n_layer: 1}' --data.batch_size 8 --trainer.accelerator cpu "
    "--trainer.enable_progress_bar false --trainer.limit_val_batches 2"
)


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the runs that tests share, with a cache of its own."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSCAN_CACHE", str(folder / "cache"))
        patch.setattr(sys, "argv", ["longscan"])
        yield folder


@pytest.fixture(scope="session")
def tables(session_folder: Path) -> Path:
    """Tables of 60-base sequences, half rich in AT and half rich in GC; two test sets."""
    folder = session_folder / "tables"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, rows in (("train", 48), ("val", 16), ("test", 16), ("test_far", 12)):
        lines = ["id\tsequence\tlabel"]
        for row in range(rows):
            label = ("at", "gc")[row % 2]
            odds = (0.4, 0.1, 0.1, 0.4) if label == "at" else (0.1, 0.4, 0.4, 0.1)
            bases = "".join(generator.choice(list("ACGT"), size=60, p=odds))
            lines.append(f"{name}{row}\t{bases}\t{label}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def pretrained(session_folder: Path) -> tuple[Path, Outcome]:
    """The folder of a masked pretraining of three steps on yeast, and what it printed."""
    folder = session_folder / "pretrained"
    line = f"genomics fit --config genomics/quickstart --output {folder} {TINY} --data.fasta embedded:yeast1"
    outcome = run(f"{line} --trainer.max_steps 3")
    assert outcome.status == 0, outcome.err
    return folder, outcome


@pytest.fixture(scope="session")
def classifier(session_folder: Path, tables: Path) -> Path:
    """The folder of a classifier of the two kinds of sequences, trained for four epochs."""
    folder = session_folder / "classifier"
    line = f"genomics fit --config genomics/quickstart_finetune --output {folder} {TINY} --data.dataset null"
    outcome = run(f"{line} --data.folder {tables} --trainer.max_epochs 4 --model.optimizer.lr 0.02")
    assert outcome.status == 0, outcome.err
    return folder
