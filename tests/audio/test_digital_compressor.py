"""The compressor that ships: how near it is to the reference on material it never heard, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import longscan
from longscan.audio.data.compression import CompressorRanges
from longscan.audio.data.sources import read_collection
from longscan.audio.effects.baselines import best_gain, error_to_signal, memoryless
from longscan.audio.effects.compressor import compress
from longscan.audio.effects.programme import PEAK, SPEAKERS, music, speech

RATE = 44_100
#: Corners and the middle of the controls, all of 0 … 1.
CONTROLS = ((0.1, 0.9, 0.1, 0.9), (0.2, 0.5, 0.9, 0.1), (0.5, 0.5, 0.5, 0.5), (0.3, 0.9, 0.9, 0.9))


@pytest.fixture(scope="module")
def examples() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Two seconds of a held-out speaker and of music of a seed of its own, each with four settings."""
    digits, ranges, result = read_collection("spoken_digits", None), CompressorRanges(), []
    kinds: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
        "speech": partial(speech, digits, SPEAKERS["test"][0], seconds=2, sample_rate=RATE),
        "music": partial(music, seconds=2, sample_rate=RATE),
    }
    for number, (kind, make) in enumerate(kinds.items()):
        samples = make(np.random.default_rng([77, number]))
        samples = (PEAK * samples / np.abs(samples).max()).astype(np.float32)[:, None]
        for controls in map(np.array, CONTROLS):
            result.append((kind, samples, compress(samples, RATE, ranges.settings(controls))[0], controls))
    return result


def test_the_error_to_signal_ratio(examples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    model: Any = longscan.from_pretrained("digital_compressor").eval()

    @torch.no_grad()
    def effect(samples: np.ndarray, controls: np.ndarray) -> np.ndarray:
        x, c = (torch.from_numpy(part[None]).float() for part in (samples, controls))
        return model(x, c)[0].double().numpy()

    found = error_to_signal(examples, effect)
    assert max(found.values()) < 0.02, found
    gain = best_gain(examples)
    assert error_to_signal(examples, lambda samples, controls: gain * samples)["all"] > 0.1
    assert error_to_signal(examples, memoryless(CompressorRanges()))["all"] > 0.03


def test_it_processes_a_file_by_its_name(
    command: Any, examples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    kind, samples, target, controls = examples[2]
    settings = CompressorRanges().settings(controls)
    names = " ".join(f"--control {name}={getattr(settings, name)!r}" for name in ("threshold", "ratio", "attack"))
    soundfile.write(tmp_path / "in.wav", samples, RATE, subtype="FLOAT")
    line = f"audio process {tmp_path}/in.wav --model digital_compressor {names} --subtype FLOAT"
    outcome = command(f"{line} --control release={settings.release!r} --output {tmp_path}/out.wav")
    assert outcome.status == 0, outcome.err
    output, rate = soundfile.read(tmp_path / "out.wav", always_2d=True)
    assert rate == RATE
    assert error_to_signal([(kind, output, target, controls)], lambda x, c: x)["all"] < 0.02
    outcome = command(f"{line} --control release=2 --output {tmp_path}/out.wav")
    assert outcome.status == 2
    assert "control release: 2 is outside of 0.03 … 0.3" in outcome.err
