"""A picture of every substitution in a region."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.files import replacing

BASES = "ACGT"


def write_heat_map(path: str | Path, effects: np.ndarray, reference: str, start: int, title: str, label: str) -> None:
    """Write a PNG: rows A, C, G, T, one column for each position; colours diverge from 0, dots mark the reference.

    Args:
        path: the file.
        effects: (4, length) float; NaN where there is no effect, as at the reference base.
        reference: the region's bases.
        start: 1-based position of the first.
        title: of the picture.
        label: of the colours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    length = effects.shape[1]
    figure = Figure(figsize=(min(max(4.0, 0.12 * length), 40.0), 2.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    finite = np.abs(effects[np.isfinite(effects)])
    limit = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    axes.set_facecolor("0.9")
    image = axes.imshow(
        effects, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest",
        extent=(start - 0.5, start + length - 0.5, 3.5, -0.5),
    )  # fmt: skip
    marks = [(start + column, BASES.index(base)) for column, base in enumerate(reference.upper()) if base in BASES]
    size = min(12.0, 2000.0 / length)
    axes.scatter([x for x, _ in marks], [y for _, y in marks], s=size, color="black", linewidths=0)
    axes.set_yticks(range(4), list(BASES))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.locator_params(axis="x", integer=True)
    axes.set(title=title, xlabel="position (1-based)")
    figure.colorbar(image, ax=axes, label=label, pad=0.01)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
