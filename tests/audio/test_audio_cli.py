"""``longscan audio`` answers ``--help`` at once; spectrograms; and how the demo puts its parts together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longscan.audio import demo, training
from longscan.audio.cli import VERBS
from longscan.audio.data import AudioTokenDataModule, WaveformDataModule
from longscan.audio.pictures import spectrogram, write_spectrograms
from longscan.core.errors import UserError

#: The verbs with a parser of their own; those of training describe every class there is, so must import them.
OWN = [verb.name for verb in VERBS if verb.target.startswith("longscan.audio.commands.")]
_HEAVY = ("torch", "lightning", "torchmetrics", "torchaudio", "sklearn", "matplotlib", "numpy", "soundfile")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    lines = [["audio", "--help"], *(["audio", verb, "--help"] for verb in OWN)]
    program = f"""
import contextlib, io, json, sys
from longscan.__main__ import main
found = {{}}
for line in {lines!r}:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(line)
    assert len(out.getvalue()) > 10, line
    found[line[1]] = [name for name in {_HEAVY!r} if name in sys.modules]
print(json.dumps(found))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert ran.returncode == 0, ran.stderr
    assert OWN == ["generate", "classify", "process", "likelihood"]
    assert json.loads(ran.stdout) == {verb: [] for verb in ["--help", *OWN]}


def test_the_list_of_commands(command: Any) -> None:
    outcome = command("audio --help")
    assert outcome.status == 0
    for verb in VERBS:
        assert f"  {verb.name} " in outcome.out
    assert "audio" in command("--help").out
    outcome = command("audio generat")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "nearest: generate" in outcome.err


def test_a_sine_in_a_spectrogram() -> None:
    """Half of full scale is -6 dB, in the bin of its frequency, and silence is at the floor."""
    time = np.arange(8000) / 8000
    levels = spectrogram(0.5 * np.sin(2 * np.pi * 1000 * time), window=256, hop=64)
    assert levels.shape == (126, 129)
    assert levels[60].argmax() == 32  # 1,000 Hz of 31.25 Hz a bin
    assert levels[60].max() == pytest.approx(-6.02, abs=0.05)
    assert spectrogram(np.zeros(1), 256, 64).tolist() == [[-120.0] * 129] * 2


def test_spectrograms_are_written(tmp_path: Path) -> None:
    path = write_spectrograms(tmp_path / "s.png", [("a", np.ones(500)), ("b", np.zeros(10))], 8000)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["s.png"]


def test_windows_without_classes(sounds: Path) -> None:
    """Files at any depth, those of another rate resampled, and no labels."""
    data = WaveformDataModule(
        length=300, folder=str(sounds), sample_rate=8000, resample=True, mixdown=True, batch_size=4, split="random"
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"input_ids", "mask"}
    assert batch["input_ids"].shape == (4, 300, 1)


def test_the_demo_measures_its_baselines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is fast of the demo: the order of its steps, the table, and entropies of the packaged recordings."""
    ran: list[str] = []

    def step(verb: object, line: str, argv: list[str]) -> None:
        domain, name = line.split()
        assert verb is getattr(training, name)
        assert domain == "audio"
        folder = tmp_path / ("digits/test" if name == "test" else argv[-1].rsplit("/", maxsplit=1)[-1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text('{"metrics": {"test/accuracy": 0.5, "val/bits": 6.5}}')
        ran.append(name)

    monkeypatch.setattr(demo, "run_step", step)
    monkeypatch.setattr(demo, "_generate", lambda argv: ran.append("generate"))
    monkeypatch.setattr(demo, "_draw_spectrograms", lambda wav, picture: ran.append("draw"))
    monkeypatch.setattr(demo, "_baseline", lambda: 0.25)
    digits, waves = demo.run(tmp_path)
    assert ran == ["fit", "test", "fit", "generate", "draw"]
    assert [row[1] for row in digits.rows] == ["0.250", "0.500"]
    order_zero = float(waves.rows[1][1])
    assert [row[1] for row in waves.rows] == ["8.000", f"{order_zero:.3f}", "6.500"]
    codes = AudioTokenDataModule(dataset="spoken_digits")
    assert codes.vocab_size == 256
    # The entropy of all codes of the whole data set over a fixed range was measured to be 7.186.
    assert 6.9 < order_zero < 7.4


def test_a_step_of_the_demo_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from longscan.audio import training

    monkeypatch.setattr(training, "fit", lambda argv: 2)
    with pytest.raises(UserError, match="the step `longscan audio fit --config audio/quickstart_digits"):
        demo.run(tmp_path)
