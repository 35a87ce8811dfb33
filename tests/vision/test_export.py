"""Models as ONNX: the same logits in onnxruntime, for other batches and resolutions, with no operator of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

for package in ("onnx", "onnxscript", "onnxruntime", "timm"):
    pytest.importorskip(package)

import longscan  # noqa: E402
from longscan.__main__ import main  # noqa: E402
from longscan.core.onnx_export import export_onnx, onnx_difference, run_onnx  # noqa: E402

SMALL: dict[str, dict[str, Any]] = {
    "vim_tiny_patch16_224": {"embed_dim": 16, "depth": 1, "img_size": (48, 80), "num_classes": 3},
    "local_vmamba_tiny": {
        "embed_dim": 8,
        "depths": (1, 1),
        "routes": ("h", "v_flip", "w2"),
        "d_state": 2,
        "img_size": 40,
        "num_classes": 3,
    },
    "vim_hydra_tiny_patch16_224": {"embed_dim": 16, "depth": 1, "img_size": 64, "num_classes": 3},
}


@pytest.mark.parametrize("name", SMALL)
def test_equal_logits_at_other_batch_sizes(name: str, tmp_path: Path) -> None:
    import onnx

    model = longscan.create_model(name, **SMALL[name]).eval()
    size = model.config.img_size
    path = export_onnx(model, torch.randn(2, 3, *size), tmp_path / "model.onnx", metadata={"note": "kept"})
    for batch in (1, 2, 5):
        assert onnx_difference(path, model, torch.randn(batch, 3, *size)) < 1e-5
    held = onnx.load(str(path))
    assert {entry.key: entry.value for entry in held.metadata_props}["note"] == "kept"
    domains = {node.domain for node in held.graph.node}
    assert not any("longscan" in domain for domain in domains), domains


def test_the_verb_at_a_second_resolution(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file of another size holds resized positions; metadata say what it reads."""
    import onnx

    names = ("cat", "dog", "eel")
    model = longscan.create_model("vim_tiny_patch16_224", **SMALL["vim_tiny_patch16_224"], class_names=names).eval()
    folder = model.save_pretrained(tmp_path / "model")
    path = tmp_path / "large.onnx"
    assert main(["vision", "export", "--model", str(folder), "--img-size", "64x96", "--output", str(path)]) == 0
    assert "batch of 3" in capsys.readouterr().out
    larger = longscan.from_pretrained(folder, img_size=(64, 96)).eval()
    x = torch.randn(4, 3, 64, 96)
    got = torch.from_numpy(run_onnx(path, x))
    torch.testing.assert_close(got, larger(x).detach(), rtol=1e-4, atol=1e-5)
    metadata = json.loads({e.key: e.value for e in onnx.load(str(path)).metadata_props}["longscan"])
    assert metadata["class_names"] == list(names)
    assert metadata["img_size"] == [64, 96]


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vision", "export", "--model", "vim_tiny_patch16_224", "--output", str(tmp_path / "m.pt")]) == 2
    assert "name it .onnx" in capsys.readouterr().err
