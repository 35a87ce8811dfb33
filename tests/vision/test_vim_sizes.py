"""Vim at other sizes of images and patches than those it was made for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vim_models import images, small

from longscan.core.errors import UserError
from longscan.vision.models import Vim, VimConfig
from longscan.vision.models.patches import resize_patches
from longscan.vision.models.positions import resize_positions


def test_a_size_that_does_not_fit_says_what_does() -> None:
    with pytest.raises(UserError, match=r"16 × 12, this model takes 20 × 12.*set_input_size"):
        small()(images(1, 16, 12))
    with pytest.raises(UserError, match="crop to 24 × 16"):
        small(dynamic_img_size=True)(images(1, 27, 18))
    with pytest.raises(UserError, match="in_chans"):
        small()(images(1, channels=1))


@pytest.mark.parametrize("class_token", ["middle", "first", "double", "none"])
def test_dynamic_sizes_equal_a_model_set_to_that_size(class_token: Any) -> None:
    dynamic = small(dynamic_img_size=True, class_token=class_token).eval()
    fixed = small(class_token=class_token).eval()
    fixed.load_state_dict(dynamic.state_dict())
    fixed.set_input_size((28, 16))
    assert fixed.config.grid == (7, 4)
    x = images(2, 28, 16)
    torch.testing.assert_close(dynamic(x), fixed(x))
    assert fixed.pos_embed._no_weight_decay
    rebuilt = Vim(VimConfig(**fixed.model_config()["config"]))
    rebuilt.load_state_dict(fixed.state_dict())


def test_resizing_moves_the_class_tokens_row() -> None:
    """From 3 × 5 to 4 × 7 patches the row goes from 7 to 14; the grid's corner rows do not come near it."""
    positions = torch.zeros(1, 16, 2)
    positions[0, 7] = 100.0
    resized = resize_positions(positions, (3, 5), (4, 7), "middle")
    assert resized[0, 14].tolist() == [100, 100]
    assert resized.sum() == 200
    ramp = torch.arange(15.0).view(1, 15, 1)
    torch.testing.assert_close(resize_positions(ramp, (3, 5), (3, 5), "none"), ramp)
    with pytest.raises(UserError, match="16 rows, expected 21"):
        resize_positions(positions, (4, 5), (4, 7), "middle")


def test_patches_of_another_size_give_the_tokens_of_enlarged_images() -> None:
    """A kernel resized from 4 to 8 gives, on images enlarged twice, the tokens of the original."""
    weight = torch.randn(5, 3, 4, 4)
    patch = torch.randn(1, 3, 4, 4)
    enlarged = torch.nn.functional.interpolate(patch, size=8, mode="bicubic", antialias=True)
    want = (weight * patch).sum((1, 2, 3))
    torch.testing.assert_close((resize_patches(weight, 8) * enlarged).sum((1, 2, 3)), want, rtol=1e-4, atol=1e-4)
    model = small().eval()
    model.set_input_size((40, 24), patch_size=8)
    assert model.config.grid == (5, 3)
    assert model.feature_info[0]["reduction"] == 8
    assert model(images(1, 40, 24)).shape == (1, 3)
