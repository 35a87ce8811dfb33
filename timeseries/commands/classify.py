"""``longscan timeseries classify``: classes of whole series, as TSV."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.cli import Parser
from ...core.command_options import add_seed_argument, check_output, write_table
from ...core.errors import UserError
from .options import check_folder, positive

if TYPE_CHECKING:
    from ..data import LabelledSeries

_DESCRIPTION = """\
Put the series of a UCR/UEA .ts file in classes, and write TSV: the number of the series in the file, its class, and the
probability of every class. Series may have any number of channels and unequal lengths; ? is a missing value.

A model is a run, a folder or a checkpoint (`longscan timeseries fit --config timeseries/classification`), or is fitted
here to --train in closed form, in seconds: random state-space kernels that are not trained, six pools of each one's
output, and a ridge regression whose strength is chosen by leaving out one training series at a time. --save keeps it.

Where the file has classes, accuracy, balanced accuracy and macro F1 are printed; with --train also those of the most
frequent class and of the nearest training series (Euclidean), the archive's own baseline.
"""


def classify(argv: list[str]) -> int:
    """``longscan timeseries classify``."""
    arguments = _parser().parse_args(argv)
    if (arguments.model is None) == (arguments.train is None):
        raise UserError("give either --model, a trained one, or --train, a file to fit one to")
    if arguments.save is not None and arguments.train is None:
        raise UserError("--save keeps the model that --train fits; leave it out")
    output = check_output(arguments.output)
    save = None if arguments.save is None else check_folder(arguments.save, "--save")
    if arguments.threads is not None:
        import torch

        torch.set_num_threads(arguments.threads)
    from ..classification import class_probabilities, known_labels
    from ..data import read_ts

    data = read_ts(arguments.data)
    train, model = _model(arguments, data)
    names: tuple[str, ...] = model.config.class_names
    truth = known_labels(data, names)
    probabilities = class_probabilities(model, data, arguments.batch_size)
    best = probabilities.argmax(1)
    rows = [
        [str(number), names[index], *(f"{value:.6f}" for value in row)]
        for number, (index, row) in enumerate(zip(best.tolist(), probabilities.tolist(), strict=True), start=1)
    ]
    write_table(output, ["series", "prediction", *(f"probability_{name}" for name in names)], rows)
    print(f"{len(rows)} series -> {output}")
    if truth is not None:
        _tell(type(model).__name__, best, truth, train, data)
    if save is not None:
        print(f"model -> {model.save_pretrained(save)}")
    return 0


def _model(arguments: argparse.Namespace, data: LabelledSeries) -> tuple[LabelledSeries | None, Any]:
    """Return the training file where there is one, and the model."""
    from ...core.device import find_device
    from ..classification import fit_kernel_bank, load_classifier
    from ..data.classification import check_alike, problem_files, read_classes

    device = find_device(arguments.device)
    if arguments.train is None:
        return None, load_classifier(arguments.model, device)
    path = problem_files(arguments.train)[0]
    train = read_classes(path)
    check_alike(data, train)
    lengths = f"{train.lengths.min()} to {train.lengths.max()}" if len(set(train.lengths)) > 1 else train.lengths[0]
    print(
        f"{path}: {len(train)} series of {lengths} steps, {train.channels} channel(s), {len(train.class_names)} classes"
    )
    if Path(data.source).resolve() == path.resolve():
        print("these are the series that are trained on: scores say nothing of new ones")
    return train, fit_kernel_bank(train, arguments.kernels, arguments.seed, device)


def _tell(name: str, best: Any, truth: Any, train: LabelledSeries | None, data: LabelledSeries) -> None:
    from ...core.report import print_table
    from ..classification import majority_class, nearest_neighbour, score_classes

    found = {name: best}
    if train is not None:
        found |= {"nearest neighbour": nearest_neighbour(train, data), "most frequent": majority_class(train, data)}
    rows = []
    for title, classes in found.items():
        scores = score_classes(classes, truth)
        rows.append((title, f"{scores.accuracy:.4f}", f"{scores.balanced_accuracy:.4f}", f"{scores.f1:.4f}"))
    print_table(("", "accuracy", "balanced accuracy", "macro F1"), rows)


def _parser() -> Parser:
    parser = Parser(prog="longscan timeseries classify", description=_DESCRIPTION)
    parser.add_argument("--data", required=True, metavar="FILE", help=".ts file of the series to classify")
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="trained before")
    parser.add_argument("--train", metavar="FILE", help="NAME_TRAIN.ts, or a folder NAME with it, to fit to")
    parser.add_argument("--save", metavar="DIR", help="folder for the model that was fitted")
    parser.add_argument("--kernels", type=positive, default=2000, help="of the model that is fitted [%(default)s]")
    add_seed_argument(parser, "of its kernels")
    parser.add_argument("--batch-size", type=positive, default=64, help="series at a time [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    parser.add_argument("--threads", type=positive, help="CPU threads [as many as there are cores]")
    parser.add_argument("--output", required=True, metavar="FILE", help="TSV file to write")
    return parser
