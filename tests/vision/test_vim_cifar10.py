"""The CIFAR-10 classifier that ships: offline, small, and the numbers it gave when it was tested (docs/vision.md).

CIFAR-10 itself is not for redistribution, so the inputs here are patterns.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import longscan

#: Logits of both patterns, by the reference backend.
EXPECTED = [
    [1.4312, -0.3905, 0.7276, -0.6046, -0.6265, -1.0122, 2.2222, -0.1079, -1.2875, -0.6541],
    [1.6757, -0.3870, 0.7139, -0.5935, -0.5633, -0.9517, 1.6424, -0.2445, -1.1818, -0.6666],
]


def patterns() -> Tensor:
    """Two normalised images (2, 3, 32, 32) of waves."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    return torch.stack(
        [
            torch.stack([torch.sin(x / (3 + channel) + y / (5 + image)) * (channel + 1) / 2 for channel in range(3)])
            for image in range(2)
        ]
    )


def test_logits() -> None:
    model: Any = longscan.from_pretrained("vim_cifar10", local_files_only=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(patterns()), torch.tensor(EXPECTED), atol=2e-3, rtol=0)
    assert model.config.class_names == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    folder = Path(longscan.vision.__file__).parent / "zoo" / "vim_cifar10"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12e6


def test_in_timm() -> None:
    """With its weights by name, and with a new head for other classes."""
    timm = pytest.importorskip("timm")
    assert longscan.vision  # registers the models
    model = timm.create_model("vim_cifar10", pretrained=True).eval()
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(patterns()), torch.tensor(EXPECTED), atol=2e-3, rtol=0)
        other = timm.create_model("vim_cifar10", pretrained=True, num_classes=3).eval()
        assert other(patterns()).shape == (2, 3)
        torch.testing.assert_close(other.forward_features(patterns()), model.forward_features(patterns()))


def test_it_is_asked_by_its_name(command: Any, tmp_path: Path) -> None:
    """Pictures of any size; a picture is prepared as the images that the model learnt from."""
    from PIL import Image

    mean, deviation = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]]).view(2, 1, 3, 1, 1)
    pixels = ((patterns() * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(tmp_path / f"{index}.png")
    pictures = f"{tmp_path}/0.png {tmp_path}/1.png"
    outcome = command(f"vision classify {pictures} --model vim_cifar10 --output {tmp_path}/c.tsv")
    assert outcome.status == 0, outcome.err
    rows = list(csv.DictReader((tmp_path / "c.tsv").open(), delimiter="\t"))
    model: Any = longscan.from_pretrained("vim_cifar10").eval()
    with torch.inference_mode():
        expected = model((pixels.float() / 255 - mean) / deviation).softmax(-1)
    names = model.config.class_names
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["prediction"] == names[int(probabilities.argmax())]
        found = [float(row[f"probability_{name}"]) for name in names]
        assert found == pytest.approx(probabilities.tolist(), abs=2e-5)
