"""``longscan vision classify``: classes and probabilities of images, as TSV."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...core.cli import Parser
from ...core.command_options import check_output, write_table
from ...core.errors import UserError, nearest
from .options import add_model_arguments, check_batch_size

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.images import Images
    from ..loading import VisionModel

_DESCRIPTION = """\
Put images in the classes of a model, and write a table with the name, the class and the probability of every class, or
with --top K of the K most probable ones.

Inputs are image files and folders of them, at any depth. Images are resized, cropped and normalised as in the model's
evaluation. With --labelled the one input is a folder with a folder for each class, and the accuracy is printed.
"""


def classify(argv: list[str]) -> int:
    """``longscan vision classify``."""
    arguments = _parser().parse_args(argv)
    check_batch_size(arguments)
    if arguments.top is not None and arguments.top < 1:
        raise UserError(f"--top {arguments.top}: must be at least 1")
    if arguments.labelled and len(arguments.files) > 1:
        raise UserError("--labelled: takes one folder of class folders; give one")
    output = check_output(arguments.output)
    from ..loading import load_model
    from .inputs import list_inputs

    if arguments.labelled:
        from ..data.folders import read_class_folders

        images = read_class_folders(arguments.files[0])
    else:
        images = list_inputs(arguments.files)
    model = load_model(arguments)
    classes = model.class_names
    labels = _labels(images, classes) if arguments.labelled else None
    probabilities = _probabilities(arguments, model, images)
    best = probabilities.argmax(1).tolist()
    if arguments.top is None:
        header = [f"probability_{name}" for name in classes]
        cells = [[f"{value:.6f}" for value in row] for row in probabilities.tolist()]
    else:
        header, cells = _most_probable(probabilities, classes, arguments.top)
    rows = [[str(name), classes[index], *row] for name, index, row in zip(images.names, best, cells, strict=True)]
    write_table(output, ["name", "prediction", *header], rows)
    print(f"{len(rows)} image(s) -> {output}")
    if labels is not None:
        correct = sum(found == wanted for found, wanted in zip(best, labels, strict=True))
        print(f"accuracy: {correct / len(labels):.4f} ({correct} of {len(labels)})")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan vision classify", description=_DESCRIPTION)
    parser.add_argument("files", nargs="+", metavar="FILE", help="image files, and folders of them")
    add_model_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=32, help="images per forward pass [%(default)s]")
    parser.add_argument("--top", type=int, metavar="K", help="write the K most probable classes instead of all")
    parser.add_argument("--labelled", action="store_true", help="the input has class folders: print the accuracy")
    parser.add_argument("--output", required=True, help="TSV file to write")
    return parser


def _labels(images: Images, classes: list[str]) -> list[int]:
    names = images.class_names or ()
    for name in names:
        if name not in classes:
            raise UserError(f"{images.origin}: the model knows no class {name!r} ({nearest(name, classes)})")
    assert images.labels is not None  # class folders have them
    return [classes.index(names[index]) for index in images.labels.tolist()]


def _most_probable(probabilities: Tensor, classes: list[str], top: int) -> tuple[list[str], list[list[str]]]:
    found = probabilities.topk(min(top, len(classes)), 1)
    header = [name for rank in range(1, found.values.shape[1] + 1) for name in (f"class_{rank}", f"probability_{rank}")]
    cells = [
        [cell for value, index in zip(values, indices, strict=True) for cell in (classes[index], f"{value:.6f}")]
        for values, indices in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    ]
    return header, cells


def _probabilities(arguments: argparse.Namespace, model: VisionModel, images: Images) -> Tensor:
    """Return the probabilities (images, classes), float32."""
    import torch
    from tqdm import tqdm

    parts: list[Tensor] = []
    with tqdm(total=len(images), unit="image", disable=None, desc="classify") as bar:
        for rows, batch in model.batches(images, arguments.batch_size):
            parts.append(model.logits(batch).softmax(-1).cpu())
            bar.update(len(rows))
    return torch.cat(parts)
