"""The command line in this process, small recordings, and small models that several tests ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_runs import run

import longscan
from longscan.audio.card import AudioCard, Control

#: Trains the raw-waveform classifier on low and high sines, in seconds; the folder is to be added.
FIT_CLASSES = (
    "audio fit --config audio/digits_official --output run --data.dataset null --data.length 400 --data.batch_size 4 "
    "--trainer.max_epochs 6 --model.optimizer.lr 0.03 --data.augmentation.shift_seconds 0 --data.num_workers 0 "
    "--trainer.accelerator cpu --trainer.enable_progress_bar false "
    "--model.options '{d_model: 8, n_layers: 1, d_state: 16}' "
)


def write_noise(path: Path, frames: int, rate: int = 8000, channels: int = 1) -> np.ndarray:
    """Write 16-bit noise and return it, float32 (frames, channels); the name decides the noise."""
    generator = np.random.default_rng(list(path.name.encode()))
    samples = (generator.integers(-9000, 9000, (frames, channels)) / 32768).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return samples


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings: a.wav (700 frames), b.wav (900), at 8 kHz; wide.wav has two channels, fast.wav 16 kHz;
    ``classes/low`` and ``classes/high`` hold sines of 300 and 2,000 Hz."""
    folder = tmp_path_factory.mktemp("sounds")
    write_noise(folder / "a.wav", 700)
    write_noise(folder / "b.wav", 900)
    write_noise(folder / "more" / "wide.wav", 500, channels=2)
    write_noise(folder / "more" / "fast.wav", 800, rate=16000)
    generator = np.random.default_rng(0)
    for label, frequency in (("low", 300), ("high", 2000)):
        (folder / "classes" / label).mkdir(parents=True)
        for number in range(20):
            phase, level = generator.uniform(0, 6), generator.uniform(0.2, 0.8)
            samples = level * np.sin(phase + 2 * np.pi * frequency * np.arange(400 + 4 * number) / 8000)
            soundfile.write(folder / "classes" / label / f"{number}.wav", samples, 8000, subtype="PCM_16")
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders of models with random weights: ``codes`` (SaShiMi), ``classes`` (of low and high), ``effect`` (controls
    drive, linear -10 to 10, and time, logarithmic 0.01 to 1)."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    options = {"d_model": 8, "n_layers": 1, "d_state": 8, "mixer": "s4d", "sample_rate": 8000}
    codes = longscan.create_model("sashimi_small", **options)
    codes.save_pretrained(folder / "codes")
    quantizer = {"bits": 8, "law": "mu", "range": "fixed"}
    AudioCard(sample_rate=8000, length=256, quantizer=quantizer).write(folder / "codes")
    classes = longscan.create_model("s4d_classifier", class_names=("high", "low"), d_model=8, n_layers=1, d_state=8)
    classes.save_pretrained(folder / "classes")
    card = AudioCard(sample_rate=8000, length=512, class_names=("high", "low"), normalize="peak")
    card.write(folder / "classes")
    effect = longscan.create_model("s4_compressor", n_controls=2, d_model=8, n_layers=2, sample_rate=8000)
    effect.save_pretrained(folder / "effect")
    controls = (Control(name="drive", low=-10, high=10), Control(name="time", low=0.01, high=1, scale="logarithmic"))
    AudioCard(sample_rate=8000, controls=controls).write(folder / "effect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSCAN_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def classifier(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier of low and high sines, trained for six epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("classifier"))
        patch.setattr("sys.argv", ["longscan"])
        outcome = run(f"{FIT_CLASSES} --data.folder {sounds}/classes")
        assert outcome.status == 0, outcome.err
        return Path("run").absolute()


@pytest.fixture
def fit_classes() -> str:
    """The command that trained the classifier."""
    return FIT_CLASSES
