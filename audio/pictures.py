"""Pictures of sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.files import replacing


def write_spectrograms(
    path: str | Path, clips: Sequence[tuple[str, np.ndarray]], sample_rate: float, *, window: int = 256, hop: int = 32
) -> Path:
    """Draw clips one above the other, time to the right, frequency upwards, level as brightness; return the path.

    Args:
        path: PNG to write, whole or not at all.
        clips: title and samples, floats (frames,) of at least one frame.
        sample_rate: in hertz.
        window: samples of a Fourier transform (Hann).
        hop: samples between them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.4 * len(clips)), layout="constrained")
    FigureCanvasAgg(figure)
    longest = max(len(samples) for _, samples in clips) / sample_rate
    for row, (title, samples) in enumerate(clips, 1):
        axes = figure.add_subplot(len(clips), 1, row)
        levels = spectrogram(np.asarray(samples, dtype=np.float64), window, hop)
        extent = (0.0, len(samples) / sample_rate, 0.0, sample_rate / 2000)
        axes.imshow(levels.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=levels.max() - 80)
        axes.set(title=title, ylabel="kHz", xlim=(0, longest))
    axes.set_xlabel("seconds")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return Path(path)


def spectrogram(samples: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Return levels in decibels, (frames, window // 2 + 1) float64, of samples (frames,) padded with silence by half a
    window at both ends; 0 dB is a full-scale sine, silence is -120."""
    padded = np.pad(samples, (window // 2, window // 2 + (-len(samples)) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    taper = np.hanning(window)
    magnitude = np.abs(np.fft.rfft(frames * taper, axis=1)) * (2 / taper.sum())
    return 20 * np.log10(np.maximum(magnitude, 1e-6))
