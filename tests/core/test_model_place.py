"""Where weights lie, which options a configuration knows, and devices by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from longscan.core.device import find_device
from longscan.core.errors import UserError
from longscan.core.model_place import fetched_place, known_options, model_place


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = model_place("digital_compressor")
    assert (packaged / "model.safetensors").exists()
    assert fetched_place("digital_compressor", None) == packaged
    (tmp_path / "digital_compressor").mkdir()  # a folder of that name comes first, as in from_pretrained
    assert model_place("digital_compressor") == Path("digital_compressor")
    assert model_place("no/such") == Path("no/such")


def test_known_options() -> None:
    wanted = {"num_classes": 3, "sample_rate": 8000, "img_size": 32}
    assert known_options("s4_classifier", wanted) == {"num_classes": 3, "sample_rate": 8000}
    assert known_options("S4Classifier", wanted) == {"num_classes": 3, "sample_rate": 8000}
    assert known_options("no_such_model", wanted) == {}


def test_devices() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UserError, match="--device nothing: cannot be used"):
        find_device("nothing")
