"""The SaShiMi that ships: bits per sample on test recordings, and a second of sound by its name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F

import longscan
from longscan.audio.data.autoregressive import AudioTokenDataModule
from longscan.audio.quantization import Quantizer


def test_bits_per_sample_of_the_first_test_recordings() -> None:
    """Twelve of the 300 test recordings; over all of them 4.769, where a context model of second order needs 5.163."""
    data = AudioTokenDataModule(
        dataset="spoken_digits", length=8192, quantizer=Quantizer(bits=8, law="mu", range="fixed"), eval_batch_size=1
    )
    data.setup("test")
    model: Any = longscan.from_pretrained("sashimi_digits").eval()
    bits = samples = 0.0
    with torch.inference_mode():
        for index in range(0, 300, 25):
            batch = data.collate([data.test_set[index]])
            logits = model(batch["input_ids"]).flatten(0, 1)
            known = int((batch["labels"] != -100).sum())
            bits += float(F.cross_entropy(logits, batch["labels"].flatten(), ignore_index=-100)) * known / math.log(2)
            samples += known
    assert samples > 30_000
    assert bits / samples == pytest.approx(4.973, abs=0.005)


def test_it_speaks_by_its_name(command: Any, tmp_path: Path) -> None:
    outcome = command(f"audio generate --model sashimi_digits --seconds 0.1 --seed 1 --output {tmp_path}/a.wav")
    assert outcome.status == 0, outcome.err
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert (rate, len(samples)) == (8000, 800)
    assert 1e-4 < np.abs(samples).max() <= 1
