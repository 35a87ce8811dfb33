"""Classes of whole series: fitting in closed form, prediction, scores, and the baselines beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from .data.classification import class_indices, padded
from .data.labelled import LabelledSeries


class Scores(NamedTuple):
    """What a table of predicted classes is worth."""

    accuracy: float
    balanced_accuracy: float
    """Mean over the classes that occur of the share that is found."""
    f1: float
    """Mean over the classes that occur or are predicted of the harmonic mean of precision and recall."""
    series: int


def fit_kernel_bank(
    train: LabelledSeries, kernels: int = 2000, seed: int = 0, device: str | torch.device = "cpu"
) -> Any:
    """Return a `KernelBankClassifier` of a training file, in seconds.

    Args:
        train: series with classes.
        kernels: their number.
        seed: of the kernels.
        device: where to compute.

    Raises:
        UserError: sizes out of range, or a channel that is nowhere observed.
    """
    from .models.kernel_bank import KernelBankClassifier, KernelBankConfig

    assert train.labels is not None
    config = KernelBankConfig(
        class_names=train.class_names,
        variates=train.channels,
        kernels=kernels,
        length=max(2, int(train.lengths.max())),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KernelBankClassifier(config).to(device)
        x, mask = padded(list(train.values))
        model.fit(x.to(device), torch.from_numpy(train.labels).to(device), mask.to(device))
    return model.eval()


@torch.inference_mode()
def class_probabilities(model: Any, data: LabelledSeries, batch_size: int = 64) -> np.ndarray:
    """Return float32 (series, classes).

    Args:
        model: called as ``model(x, mask)``, such as `SeriesClassifier` and `KernelBankClassifier`.
        data: series of as many channels as the model's.
        batch_size: series at a time, of like lengths; probabilities do not depend on it beyond rounding.

    Raises:
        UserError: another number of channels.
    """
    if model.config.variates != data.channels:
        raise UserError(
            f"{data.source}: its series have {data.channels} channels, the model reads {model.config.variates}; "
            "choose another model"
        )
    device = next(model.parameters()).device
    order = np.argsort(data.lengths, kind="stable")
    found = np.empty((len(data), model.config.num_classes), dtype=np.float32)
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        x, mask = padded([data.values[row] for row in rows])
        logits: Tensor = model(x.to(device), mask.to(device))
        found[rows] = logits.float().softmax(-1).cpu().numpy()
    return found


def score_classes(predicted: np.ndarray, truth: np.ndarray) -> Scores:
    """Compare classes, both int64 (series,)."""
    classes = np.union1d(predicted, truth)
    recall, f1 = [], []
    for one in classes:
        hits = int(((predicted == one) & (truth == one)).sum())
        meant, said = int((truth == one).sum()), int((predicted == one).sum())
        if meant:
            recall.append(hits / meant)
        f1.append(2 * hits / (meant + said))
    return Scores(float((predicted == truth).mean()), float(np.mean(recall)), float(np.mean(f1)), len(truth))


def majority_class(train: LabelledSeries, data: LabelledSeries) -> np.ndarray:
    """Return the most frequent class of training for every series, int64 (series,)."""
    assert train.labels is not None
    return np.full(len(data), np.bincount(train.labels).argmax())


def nearest_neighbour(train: LabelledSeries, data: LabelledSeries) -> np.ndarray:
    """Return the class of the nearest training series by Euclidean distance, int64 (series,).

    Channels are scaled by mean and deviation of the training file; what is missing, and what lies behind a shorter
    series, counts as the mean. This is the archive's own baseline.
    """
    assert train.labels is not None
    rows = np.concatenate(train.values)
    mean, std = np.nanmean(rows, 0), np.nanstd(rows, 0)
    std = np.where(std > 0, std, 1.0)
    longest = int(max(train.lengths.max(), data.lengths.max()))

    def flat(one: LabelledSeries) -> np.ndarray:
        result = np.zeros((len(one), longest, one.channels))
        for row, values in enumerate(one.values):
            result[row, : len(values)] = np.nan_to_num((values - mean) / std)
        return result.reshape(len(one), -1)

    known, asked = flat(train), flat(data)
    distance = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)[None]
    return train.labels[distance.argmin(1)]


def known_labels(data: LabelledSeries, names: tuple[str, ...]) -> np.ndarray | None:
    """Return the classes of a file in the order of ``names``, int64 (series,); None where it has none.

    Raises:
        UserError: a class that is not among them; names the series.
    """
    for number, index in enumerate([] if data.labels is None or not data.class_names else data.labels, start=1):
        if data.class_names[index] not in names:
            raise UserError(
                f"{data.source}: class {data.class_names[index]!r} of series {number} is none of the model's: "
                f"{', '.join(names)}"
            )
    return class_indices(data, names)


def load_classifier(place: str | Path, device: str | torch.device = "cpu") -> Any:
    """Load a run, a model's folder, a checkpoint, or a registered name with weights.

    Raises:
        UserError: nothing there, or no classifier of series.
    """
    import longscan

    from .trained import model_folder

    where = model_folder(Path(place).expanduser())
    model: Any = longscan.from_pretrained(str(place) if where is None else where)
    config = getattr(model, "config", None)
    if getattr(config, "class_names", None) is None or not hasattr(config, "variates"):
        raise UserError(f"{place}: {type(model).__name__} is no classifier of series; choose another model")
    return model.eval().to(device)
