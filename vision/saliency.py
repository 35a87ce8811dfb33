"""Which pixels a class depends on: maps of relevance, and a picture of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.files import replacing

Method = Literal["gradient", "integrated", "attention"]
METHODS: tuple[Method, ...] = ("gradient", "integrated", "attention")
#: Projections to step sizes, B and C; detached, a scan is the linear map of its implicit attention.
_SELECTION = re.compile(r"x_proj(_b|_\d+)?")


def relevance(
    model: nn.Module, images: Tensor, classes: Tensor, method: Method = "gradient", *, steps: int = 32
) -> Tensor:
    """Return how much each pixel speaks for a class: (batch, height, width), the sum over the channels.

    ``gradient``
        Gradient of the logit times the input (Shrikumar et al. 2016, arXiv:1605.01713, section 3).
    ``integrated``
        The mean of that gradient along the line from a grey image (zeros, the mean of normalised images), times the
        input; the map adds up to the logit's difference from the grey image's (Sundararajan et al. 2017,
        arXiv:1703.01365, section 3).
    ``attention``
        Gradient times input where step sizes, B and C of each scan are constants: a selective scan is then its
        implicit attention, the matrix ``C_i exp(A Σ dt) dt_j B_j`` (Ali et al. 2024, arXiv:2403.01590, section 4).

    Args:
        model: in evaluation mode.
        images: as the model reads them, (batch, channels, height, width).
        classes: int64 (batch,).
        method: as above.
        steps: points on the line of ``integrated``.

    Raises:
        UserError: an unknown method, or ``attention`` for a model whose scans do not have that form.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if method == "integrated":
        total = torch.zeros_like(images)
        for step in range(steps):
            total += _gradient(model, images * ((step + 0.5) / steps), classes)
        return (total / steps * images).sum(1)
    if method == "gradient":
        return (_gradient(model, images, classes) * images).sum(1)
    with constant_selection(model):
        return (_gradient(model, images, classes) * images).sum(1)


def _gradient(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        chosen = model(x).gather(1, classes.view(-1, 1)).sum()
        return torch.autograd.grad(chosen, x)[0]


@contextmanager
def constant_selection(model: nn.Module) -> Iterator[None]:
    """In the block no gradient passes through what a scan derives its step sizes, B and C from.

    Raises:
        UserError: the model has no such projection, or has one that it did not call: its scans took another way.
    """
    found = [module for name, module in model.named_modules() if _SELECTION.fullmatch(name.rpartition(".")[2])]
    if not found:
        raise UserError(
            f"method 'attention' is for Vim and other models of Mamba layers, this {type(model).__name__} has none; "
            "use 'gradient' or 'integrated'"
        )
    called: set[nn.Module] = set()

    def hold(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        called.add(module)
        return output.detach()

    hooks = [module.register_forward_hook(hold) for module in found]
    try:
        yield
        if len(called) < len(set(found)):
            raise UserError(
                f"method 'attention': {len(set(found)) - len(called)} of {len(set(found))} projections of this "
                f"{type(model).__name__} could not be held; use 'gradient' or 'integrated'"
            )
    finally:
        for hook in hooks:
            hook.remove()


def by_patch(relevances: Tensor, side: int) -> Tensor:
    """Return the sum over each square of ``side`` pixels, (batch, ⌈height / side⌉, ⌈width / side⌉)."""
    height, width = relevances.shape[1:]
    padded = F.pad(relevances, (0, -width % side, 0, -height % side))
    return F.avg_pool2d(padded.unsqueeze(1), side).squeeze(1) * side**2


def draw(
    path: str | Path, pixels: np.ndarray, relevances: np.ndarray, title: str, *, note: str = "", side: int = 1
) -> Path:
    """Write a picture: the image, and the image with the map over it, red for and blue against the class.

    Args:
        path: of the picture, .png, .pdf or .svg.
        pixels: the image, uint8 (height, width) or (height, width, 3).
        relevances: (rows, columns) of squares of ``side`` pixels.
        title: above the map.
        note: below it.
        side: pixels of a square.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = pixels.shape[:2]
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    grey = pixels if pixels.ndim == 2 else pixels.mean(-1)
    left.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None)
    right.imshow(grey, cmap="gray", alpha=0.6)
    extent = (-0.5, relevances.shape[1] * side - 0.5, relevances.shape[0] * side - 0.5, -0.5)
    limit = float(np.quantile(np.abs(relevances), 0.995)) or 1.0
    smooth: Any = "bicubic" if side > 1 else "nearest"
    shown = right.imshow(
        relevances, cmap="seismic", vmin=-limit, vmax=limit, alpha=0.55, extent=extent, interpolation=smooth
    )
    for axes in (left, right):
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        axes.set_axis_off()
    right.set_title(title)
    figure.colorbar(shown, ax=right, shrink=0.8, label="relevance of a patch" if side > 1 else "relevance of a pixel")
    if note:
        figure.supxlabel(note, fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return Path(path)
