"""Synthetic series: seeded generators to train on where there is no data, or to try a model on.

Each generator takes a number of series, a number of steps and a ``torch.Generator``, and returns float32
(count, length) on its device; all series are drawn at once. The unit of time is the step. ::

    from longscan.timeseries.priors import draw, list_priors
    draw("kernel_synth", count=8, length=1024, seed=1)
"""

from . import audio, calendar, causal_graphs, diffusions, events, gaussian_processes, structural, waves
from .augmentation import augment, hide, mix
from .mixture import WEIGHTS, draw_mixture
from .pools import SeriesPools
from .registry import Prior, draw, find_prior, list_priors, register_prior

__all__ = [
    "WEIGHTS",
    "Prior",
    "SeriesPools",
    "audio",
    "augment",
    "calendar",
    "causal_graphs",
    "diffusions",
    "draw",
    "draw_mixture",
    "events",
    "find_prior",
    "gaussian_processes",
    "hide",
    "list_priors",
    "mix",
    "register_prior",
    "structural",
    "waves",
]
