"""``longscan audio classify``: classes and probabilities of files, as TSV."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.cli import Parser
from ...core.command_options import check_output, write_table
from ...core.errors import UserError, nearest
from .options import add_format_arguments, add_model_arguments

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.classification import ClipDataset
    from ..data.manifest import Recordings
    from ..loading import AudioModel

_DESCRIPTION = """\
Put recordings in the classes of a model, and write a table with the name, the class and all probabilities.

Inputs are audio files, folders of them, or one manifest (.csv, .tsv, .jsonl with a column path). Where a manifest has
the column label, the accuracy is printed. Clips are cut, padded and normalised as in training.

--sample-rate-shift F reads audio at the model's rate divided by F, and steps the model's state spaces F times as far
with each sample, without training anew. F is a whole number: files at the model's rate lose all but every F-th sample,
without a filter, as the published zero-shot tests do; files at the lower rate are read as they are; with --resample
files of any rate are resampled to it, filtered.
"""


def classify(argv: list[str]) -> int:
    """``longscan audio classify``."""
    arguments = _parser().parse_args(argv)
    shift = arguments.sample_rate_shift
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: must be at least 1")
    if shift < 1:
        raise UserError(f"--sample-rate-shift {shift}: must be at least 1")
    output = check_output(arguments.output)
    from ..loading import load_model

    recordings = _recordings(arguments.files)
    model = load_model(arguments)
    if model.card.class_names is None:
        raise UserError(f"{arguments.model}: names no classes; choose a classifier as --model")
    classes = list(model.card.class_names)
    labels = _labels(recordings, classes)
    probabilities = _probabilities(arguments, model, recordings)
    best = probabilities.argmax(1).tolist()
    rows = [
        [str(name), classes[index], *(f"{value:.6f}" for value in row)]
        for name, index, row in zip(recordings.names, best, probabilities.tolist(), strict=True)
    ]
    write_table(output, ["name", "prediction", *(f"probability_{name}" for name in classes)], rows)
    at = "" if shift == 1 else f" at {model.card.model_rate / shift:g} Hz (rate {shift})"
    print(f"{len(rows)} recording(s){at} -> {output}")
    if labels is not None:
        correct = sum(found == wanted for found, wanted in zip(best, labels, strict=True))
        print(f"accuracy{at}: {correct / len(labels):.4f} ({correct} of {len(labels)})")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan audio classify", description=_DESCRIPTION)
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio files, folders of them, or one manifest")
    add_model_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=32, help="recordings per forward pass [%(default)s]")
    parser.add_argument("--sample-rate-shift", type=int, default=1, metavar="F", help="see above [%(default)s]")
    add_format_arguments(parser)
    parser.add_argument("--output", required=True, help="TSV file to write")
    return parser


def _recordings(files: list[str]) -> Recordings:
    from ..data.manifest import MANIFEST_ENDINGS, make_recordings, read_manifest
    from .inputs import list_inputs

    if len(files) == 1 and Path(files[0]).suffix.lower() in MANIFEST_ENDINGS:
        return read_manifest(files[0])
    names, paths = list_inputs(files)
    return make_recordings("the command line", [Path(path) for path in paths], names=names)


def _labels(recordings: Recordings, classes: list[str]) -> list[int] | None:
    if recordings.labels is None:
        return None
    for row, label in enumerate(recordings.labels):
        if label not in classes:
            raise UserError(f"{recordings.where(row)}: the model knows no label {label!r} ({nearest(label, classes)})")
    return [classes.index(label) for label in recordings.labels]


def _probabilities(arguments: argparse.Namespace, model: AudioModel, recordings: Recordings) -> Tensor:
    """Return the probabilities (recordings, classes), float32."""
    import numpy as np
    import torch
    from tqdm import tqdm

    clips = _clips(arguments, model, recordings)
    # Without a length a batch holds clips of one length alone, so that none is padded.
    order = range(len(clips)) if clips.length is not None else np.argsort(clips.lengths, kind="stable").tolist()
    result: dict[int, Tensor] = {}
    options = {} if arguments.sample_rate_shift == 1 else {"rate": float(arguments.sample_rate_shift)}
    with tqdm(total=len(clips), unit="clip", disable=None, desc="classify") as bar, torch.inference_mode():
        for rows in _batches(list(order), clips, arguments.batch_size):
            samples = [clips[row] for row in rows]
            inputs = torch.from_numpy(np.stack([sample["samples"] for sample in samples])).to(model.device)
            mask = None
            if model.card.mask_padding:
                frames = torch.arange(inputs.shape[1])
                mask = torch.stack([(frames >= s["begin"]) & (frames < s["end"]) for s in samples]).to(model.device)
            found = model.model(inputs, mask=mask, **options).float().softmax(-1).cpu()
            result |= dict(zip(rows, found, strict=True))
            bar.update(len(rows))
    return torch.stack([result[row] for row in range(len(clips))])


def _batches(order: list[int], clips: ClipDataset, size: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for row in order:
        last = batches[-1] if batches else None
        alike = last is not None and (clips.length is not None or clips.lengths[row] == clips.lengths[last[0]])
        if last is not None and alike and len(last) < size:
            last.append(row)
        else:
            batches.append([row])
    return batches


def _clips(arguments: argparse.Namespace, model: AudioModel, recordings: Recordings) -> ClipDataset:
    """Return the recordings prepared as for training, at the rate that is asked for."""
    from dataclasses import replace

    from ..data.classification import ClipDataset
    from ..data.files import read_info
    from ..features import MelFeatures

    card, shift = model.card, arguments.sample_rate_shift
    wanted, decimation, length = model.file_format(arguments), card.decimation, card.length
    if shift > 1:
        if card.features is not None:
            raise UserError(f"--sample-rate-shift {shift}: {model.name} reads mel features, not samples; leave it away")
        low, rest = divmod(card.sample_rate, shift)
        first = read_info(recordings.paths[0]).sample_rate
        if arguments.resample or first == low:
            if rest:
                raise UserError(
                    f"--sample-rate-shift {shift}: does not divide the model's {card.sample_rate} Hz; choose another"
                )
            wanted = replace(wanted, sample_rate=low)
            length = None if length is None else math.ceil(length / shift)
        else:
            decimation *= shift
    options: dict[str, Any] = {"length": length, "random": False, "decimation": decimation}
    options |= {"padding": card.padding, "normalize": card.normalize}
    features = None if card.features is None else MelFeatures(**card.features)
    return ClipDataset(recordings, recordings.check(wanted), None, wanted, features=features, **options)
