"""VideoMamba equals the published code, takes other clips, and its weights load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import longscan
from longscan.core.errors import UserError
from longscan.vision.models import VideoMamba, VideoMambaConfig, Vim, VimConfig

GOLDEN = Path(__file__).parent.parent / "golden" / "vision" / "videomamba_a"
CONFIG = json.loads((GOLDEN / "config.json").read_text())
#: Published arguments of the fixture and our names of them.
OPTIONS = {
    "img_size": CONFIG["constructor"]["img_size"],
    "patch_size": CONFIG["constructor"]["patch_size"],
    "embed_dim": CONFIG["constructor"]["embed_dim"],
    "depth": CONFIG["constructor"]["depth"],
    "num_classes": CONFIG["constructor"]["num_classes"],
    "num_frames": CONFIG["constructor"]["num_frames"],
    "tubelet_size": CONFIG["constructor"]["kernel_size"],
}


def golden() -> tuple[VideoMamba, torch.Tensor, dict[str, np.ndarray]]:
    model = VideoMamba(VideoMambaConfig(**OPTIONS)).eval()
    model.load_state_dict(load_file(GOLDEN / "model.safetensors"))
    x = torch.from_numpy(np.load(GOLDEN / "inputs.npz")["x"])
    return model, x, dict(np.load(GOLDEN / "outputs.npz"))


def test_the_published_numbers_and_names() -> None:
    model, x, want = golden()
    tokens = model.forward_features(x)
    tolerance = CONFIG["tolerance"]
    np.testing.assert_allclose(model.forward_head(tokens).detach().numpy(), want["logits"], **tolerance)
    features = model.forward_head(tokens, pre_logits=True)
    np.testing.assert_allclose(features.detach().numpy(), want["forward_features"], **tolerance)
    assert {n: list(p.shape) for n, p in model.named_parameters()} == CONFIG["parameters"]


def test_weights_load_and_fit(tmp_path: Path) -> None:
    """A training checkpoint is recognised; other lengths and sizes are fitted; what is saved comes back."""
    model, x, want = golden()
    path = tmp_path / "videomamba.pth"
    torch.save({"model": model.state_dict()}, path)
    loaded = longscan.from_pretrained(path).eval()
    assert isinstance(loaded, VideoMamba)
    np.testing.assert_allclose(loaded(x).detach().numpy(), want["logits"], **CONFIG["tolerance"])
    again = longscan.from_pretrained(loaded.save_pretrained(tmp_path / "saved")).eval()
    torch.testing.assert_close(again(x), loaded(x))
    longer = longscan.from_pretrained(path, num_frames=8, img_size=(32, 48), num_classes=3).eval()
    assert longer.temporal_pos_embedding.shape == (1, 8, 32)
    assert longer(torch.randn(1, 3, 8, 32, 48)).shape == (1, 3)


def test_a_still_clip_of_one_frame_is_an_image() -> None:
    """With one frame and no positions in time, the numbers are those of Vim."""
    model, x, _ = golden()
    image = Vim(
        VimConfig(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_classes=9, class_token="first", divide_out=False
        )
    ).eval()
    weights = {k: v for k, v in model.state_dict().items() if k != "temporal_pos_embedding"}
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"][:, :, 0]
    image.load_state_dict(weights)
    one = VideoMamba(VideoMambaConfig(**{**OPTIONS, "num_frames": 1})).eval()
    state = {**model.state_dict(), "temporal_pos_embedding": torch.zeros(1, 1, 32)}
    one.load_state_dict(state)
    torch.testing.assert_close(one(x[:, :, :1]), image(x[:, :, 0]))


def test_clips_of_any_length_and_orders_in_time() -> None:
    options: dict[str, Any] = {"embed_dim": 16, "depth": 2, "img_size": 32, "num_classes": 2, "tubelet_size": 2}
    model = longscan.create_model("videomamba_tiny", dynamic_img_size=True, num_frames=4, **options)
    clip = torch.randn(1, 3, 6, 48, 32)
    final, maps = model.forward_intermediates(clip)
    assert final.shape == (1, 3 * 3 * 2 + 1, 16)
    assert maps[0].shape == (1, 16, 3, 3, 2)
    model(clip).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert "temporal_pos_embedding" in model.no_weight_decay()
    columns = longscan.create_model("videomamba_tiny", num_frames=4, scan_orders=["column"], **options)
    assert columns(torch.randn(1, 3, 4, 32, 32)).shape == (1, 2)


def test_weights_of_an_image_model_start_a_video_model() -> None:
    image = longscan.create_model("videomamba_image_tiny", embed_dim=16, depth=2, img_size=32)
    video = longscan.create_model("videomamba_tiny", embed_dim=16, depth=2, img_size=32, num_frames=6, tubelet_size=3)
    fitted = video.fit_weights(image.state_dict(), image.config)
    kernel = fitted["patch_embed.proj.weight"]
    assert torch.equal(kernel[:, :, 1], image.patch_embed.proj.weight)
    assert not kernel[:, :, [0, 2]].any()
    assert video.load_state_dict(fitted, strict=False).missing_keys == ["temporal_pos_embedding"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 32, 32), "expected .batch, 3, frames"),
        ((1, 3, 5, 32, 32), "clips have 5 frames, this model takes 4"),
        ((1, 3, 4, 48, 32), "48 × 32, this model takes 32 × 32"),
    ],
)
def test_mistakes(shape: tuple[int, ...], message: str) -> None:
    model = VideoMamba(VideoMambaConfig(**OPTIONS))
    with pytest.raises(UserError, match=message):
        model(torch.zeros(shape))
    with pytest.raises(UserError, match="multiple of tubelet_size"):
        VideoMambaConfig(num_frames=3, tubelet_size=2)
    with pytest.raises(UserError, match="rope is 'vim'"):
        VideoMambaConfig(rope="vim")
