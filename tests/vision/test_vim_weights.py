"""Published Vim checkpoints: their format, other classes, resolutions, strides and channels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import longscan
from longscan.core.errors import UserError
from longscan.vision.models import Vim, VimConfig
from longscan.vision.models.positions import resize_positions

TINY = "vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2"


def published(
    tmp_path: Path, *, args: dict[str, Any] | None = None, prefix: str = "", **options: Any
) -> tuple[Path, Vim]:
    """Write a checkpoint as the original trainer does, and return it with the model whose weights it holds."""
    options = dict(embed_dim=16, depth=2, img_size=64, num_classes=5, d_state=4) | options
    model = Vim(VimConfig(**options)).eval()
    path = tmp_path / "checkpoint.pth"
    torch.save(
        {
            "model": {prefix + key: value for key, value in model.state_dict().items()},
            "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
            "lr_scheduler": {"warmup_t": 5},
            "epoch": 299,
            "model_ema": model.state_dict(),
            "scaler": "none",
            "args": argparse.Namespace(**{"model": TINY, "input_size": 64, "lr": 1e-3, **(args or {})}),
        },
        path,
    )
    return path, model


def images(size: int = 64, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_a_training_checkpoint(tmp_path: Path, prefix: str) -> None:
    """Everything that the weights and the arguments show is known without being told."""
    path, model = published(tmp_path, prefix=prefix)
    loaded = longscan.from_pretrained(path)
    x = images()
    assert torch.equal(loaded(x), model(x))
    assert loaded.config.grid == (4, 4)
    assert (loaded.config.class_token, loaded.config.d_state, loaded.config.stride) == ("middle", 4, 16)


@pytest.mark.parametrize(
    ("options", "args"),
    [
        (
            {"img_size": 224, "patch_stride": 8, "depth": 1},
            {"model": TINY.replace("_224", "_stride8_224"), "input_size": 224},
        ),
        ({"img_size": 224, "depth": 1}, {"model": TINY, "input_size": 224}),
        ({"class_token": "double"}, {}),
        ({"class_token": "none"}, {}),
        ({"class_token": "first"}, {"model": "vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed"}),
        ({"directions": "v1"}, {}),
        ({"directions": "none"}, {}),
        ({"layer_scale": 0.1}, {}),
        ({"norm": "layernorm"}, {}),
        ({"in_chans": 1}, {}),
        ({"num_classes": 0}, {}),
        ({"expand": 1, "dt_rank": 3, "d_conv": 3}, {}),
    ],
)
def test_what_is_read_from_weights(tmp_path: Path, options: dict[str, Any], args: dict[str, Any]) -> None:
    path, model = published(tmp_path, args=args, **options)
    loaded = longscan.from_pretrained(path)
    for name, value in options.items():
        if name != "layer_scale":
            assert getattr(loaded.config, name) == getattr(model.config, name), (name, value)
    x = images(model.config.img_size[0], model.config.in_chans)
    assert torch.equal(loaded(x), model(x))


def test_a_plain_state_dictionary_of_a_stride_of_8_is_recognised_at_224_pixels(tmp_path: Path) -> None:
    """729 positions are 27 × 27 patches: at 224 pixels the stride is 8, not 16 (which would need 432 pixels)."""
    model = Vim(VimConfig(embed_dim=8, depth=1, patch_stride=8, num_classes=2))
    torch.save(model.state_dict(), tmp_path / "vim.pth")
    loaded = longscan.from_pretrained(tmp_path / "vim.pth")
    assert (loaded.config.img_size, loaded.config.patch_stride) == ((224, 224), 8)


def test_other_classes(tmp_path: Path) -> None:
    path, model = published(tmp_path)
    loaded = longscan.from_pretrained(path, num_classes=9)
    assert loaded(images()).shape == (2, 9)
    assert torch.equal(loaded.forward_features(images() * 0), model.forward_features(images() * 0))
    features = longscan.from_pretrained(path, num_classes=0)
    assert features(images()).shape == (2, 16)
    named = longscan.from_pretrained(path, num_classes=5, class_names=("a", "b", "c", "d", "e"))
    assert torch.equal(named.head.weight, model.head.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "overrides", [{"img_size": (96, 48)}, {"patch_stride": 8}, {"img_size": 80, "patch_stride": 8}]
)
def test_other_resolutions_and_strides(tmp_path: Path, overrides: dict[str, Any]) -> None:
    """Positions are those of set_input_size or of the resize itself; everything else is as stored."""
    path, model = published(tmp_path)
    loaded = longscan.from_pretrained(path, **overrides)
    want = resize_positions(model.pos_embed, (4, 4), loaded.config.grid, "middle")
    torch.testing.assert_close(loaded.pos_embed, want, check_stride=False)
    quirk = longscan.from_pretrained(path, posembed_resize="vim-row0", **overrides)
    want = resize_positions(model.pos_embed, (4, 4), loaded.config.grid, "first")
    assert quirk.pos_embed[0, 0].tolist() == model.pos_embed[0, 0].tolist()
    if loaded.config.grid[0] * loaded.config.grid[1] != 16:
        assert not torch.allclose(quirk.pos_embed, loaded.pos_embed, atol=1e-3)
    height, width = loaded.config.img_size
    assert loaded(torch.randn(1, 3, height, width)).isfinite().all()


def test_other_channels_and_patches(tmp_path: Path) -> None:
    path, model = published(tmp_path)
    grey = longscan.from_pretrained(path, in_chans=1)
    x = images(channels=1)
    torch.testing.assert_close(grey(x), model(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    six = longscan.from_pretrained(path, in_chans=6)
    x = images()
    torch.testing.assert_close(six(torch.cat([x, x], 1)), model(x), rtol=1e-4, atol=1e-5)
    finer = longscan.from_pretrained(path, patch_size=8, patch_stride=8, img_size=32)
    assert finer.config.grid == (4, 4)
    assert finer(images(32)).isfinite().all()


def test_saving_keeps_everything(tmp_path: Path) -> None:
    _, model = published(tmp_path, class_names=("a", "b", "c", "d", "e"), layer_scale=0.5)
    model.save_pretrained(tmp_path / "own")
    again = longscan.from_pretrained(tmp_path / "own")
    assert again.config == model.config
    assert torch.equal(again(images() * 0), model(images() * 0))
    larger = longscan.from_pretrained(tmp_path / "own", img_size=96)
    assert larger.config.grid == (6, 6)
    model.save_pretrained(tmp_path / "published", format="vim")
    assert torch.equal(longscan.from_pretrained(tmp_path / "published")(images() * 0), model(images() * 0))


def test_published_constructor_arguments_beside_the_weights(tmp_path: Path) -> None:
    path, _ = published(tmp_path, img_size=(32, 96), patch_stride=8)
    with pytest.raises(UserError, match=r"33 positions are no square grid.*img_size"):
        longscan.from_pretrained(path)
    stated = {"img_size": [32, 96], "stride": 8, "embed_dim": 16, "depth": 2, "d_state": 4, "num_classes": 5}
    loaded = longscan.from_pretrained(path, config=stated)
    assert loaded.config.grid == (3, 11)
    assert loaded(torch.randn(1, 3, 32, 96)).shape == (1, 5)
    with pytest.raises(UserError, match="embed_dim is 32 by its configuration, 16 by weights"):
        longscan.from_pretrained(path, config={**stated, "embed_dim": 32})


class Payload:
    """Pickles as a call."""

    def __reduce__(self) -> Any:
        return print, ("this must not run",)


def test_pickled_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Vim(VimConfig(embed_dim=8, depth=1, img_size=32, num_classes=2))
    path = tmp_path / "evil.pth"
    torch.save({"model": model.state_dict(), "args": Payload()}, path)
    for load in (longscan.from_pretrained, model.load_pretrained):
        with pytest.raises(UserError, match="pickled code"):
            load(path)
    assert "must not run" not in capsys.readouterr().out


def test_a_checkpoint_of_another_width_is_refused(tmp_path: Path) -> None:
    path, _ = published(tmp_path)
    with pytest.raises(UserError, match="width 16, depth 2"):
        Vim(VimConfig(embed_dim=32, depth=2, img_size=64)).load_pretrained(path)


def test_hub_entries_name_one_file() -> None:
    from longscan.core.registry import find_model

    entry = find_model(TINY)
    assert entry is not None
    assert entry.name == "vim_tiny_patch16_224"
    assert (entry.hub, entry.hub_file) == ("hustvl/Vim-tiny-midclstok", "vim_t_midclstok_76p1acc.pth")
    assert find_model("hustvl/Vim-base-midclstok").name == "vim_base_patch16_224"  # type: ignore[union-attr]


def test_one_file_of_a_hub_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that holds both files of a repository gives the one that the name means."""
    import huggingface_hub

    path, model = published(tmp_path, embed_dim=192, depth=1, d_state=16)
    (tmp_path / "vim_t_midclstok_ft_78p3acc.pth").write_bytes(b"another file")
    path.rename(tmp_path / "vim_t_midclstok_76p1acc.pth")
    asked: list[Any] = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append((repository, options["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    loaded = longscan.from_pretrained("vim_tiny_patch16_224")
    assert asked == [("hustvl/Vim-tiny-midclstok", ["vim_t_midclstok_76p1acc.pth"])]
    assert torch.equal(loaded(images()[:1] * 0), model(images()[:1] * 0))
