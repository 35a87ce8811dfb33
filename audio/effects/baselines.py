"""What an effect can be copied with, without learning: a constant gain, and a compressor without memory.

``python -m longscan.audio.effects.baselines MANIFEST`` prints the error-to-signal ratios of both, and of a model's
(``--model``), on the test recordings of a manifest, with the settings that `CompressorDataModule` draws for them, in
all and for each value of the column ``kind`` where there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ...core.cli import Parser, guarded
from ...core.report import print_table
from ..data.compression import CompressorDataModule, CompressorRanges
from .compressor import level, static_reduction

#: Input (frames, channels) and controls (4,) to output, float64.
Effect = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Name of a recording's kind, input, target and controls of a window.
Example = tuple[str, np.ndarray, np.ndarray, np.ndarray]


def memoryless(ranges: CompressorRanges) -> Effect:
    """Return the compressor with attack and release of nothing: the static curve of each sample's level."""

    def effect(samples: np.ndarray, controls: np.ndarray) -> np.ndarray:
        loudest = np.abs(samples).max(1)
        return samples * 10 ** (-static_reduction(level(loudest), ranges.settings(controls)) / 20)[:, None]

    return effect


def best_gain(examples: Iterable[Example]) -> float:
    """Return the one factor on all inputs with the least squared error."""
    products = squares = 0.0
    for _, inputs, targets, _ in examples:
        wide = inputs.astype(np.float64)
        products, squares = products + float((wide * targets).sum()), squares + float((wide * wide).sum())
    return products / squares


def error_to_signal(examples: Iterable[Example], effect: Effect) -> dict[str, float]:
    """Return the energy of the error over that of the target of ``effect``, for each kind and for ``all``."""
    sums: dict[str, np.ndarray] = {}
    for kind, inputs, targets, controls in examples:
        wide = targets.astype(np.float64)
        error = effect(inputs.astype(np.float64), controls) - wide
        for name in ("all", kind):
            energies = np.array([np.square(error).sum(), np.square(wide).sum()])
            sums[name] = sums.get(name, np.zeros(2)) + energies
    return {name: float(error / target) for name, (error, target) in sums.items()}


def model_effect(name: str) -> Effect:
    """Return a trained model as an effect (see ``from_pretrained``), on a GPU where there is one."""
    import torch

    import longscan

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = longscan.from_pretrained(name).eval().to(device)

    @torch.no_grad()
    def effect(samples: np.ndarray, controls: np.ndarray) -> np.ndarray:
        x, c = (torch.from_numpy(part[None]).float().to(device) for part in (samples, controls))
        return model(x, c)[0].double().cpu().numpy()

    return effect


def main(argv: Sequence[str]) -> int:
    """Print the table."""
    parser = Parser(prog="python -m longscan.audio.effects.baselines", description=__doc__)
    parser.add_argument("manifest", metavar="MANIFEST", help="recordings, with the column split")
    parser.add_argument("--sample-rate", type=int, default=44_100, help="in hertz [%(default)s]")
    parser.add_argument("--eval-length", type=int, default=262_144, help="frames of a window [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the settings, as the data module's [%(default)s]")
    parser.add_argument("--model", action="append", default=[], help="a trained model; as often as wanted")
    arguments = parser.parse_args(argv)
    data = CompressorDataModule(
        manifest=arguments.manifest,
        sample_rate=arguments.sample_rate,
        eval_length=arguments.eval_length,
        seed=arguments.seed,
    )
    data.setup("test")
    examples = list(_examples(data))
    gain = best_gain(examples)
    effects: dict[str, Effect] = {
        "output = input": lambda samples, controls: samples,
        f"output = {gain:.3f} · input": lambda samples, controls: gain * samples,
        "compressor without memory": memoryless(data.ranges),
    } | {name: model_effect(name) for name in arguments.model}
    found = {name: error_to_signal(examples, effect) for name, effect in effects.items()}
    kinds = [kind for kind in next(iter(found.values())) if kind]
    print_table(
        ["ESR on test", *kinds], [[name, *(f"{values[kind]:.4f}" for kind in kinds)] for name, values in found.items()]
    )
    return 0


def _examples(data: CompressorDataModule) -> Iterable[Example]:
    test = data.test_set
    kinds = test.inputs.columns.get("kind")
    for index in range(len(test)):
        sample = test[index]
        kind = "" if kinds is None else str(kinds[test.windows.row[index]])
        yield kind, sample["input_ids"], sample["labels"], sample["controls"]


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
