"""What the tasks of images train: mixing, metrics, layer-wise rates, other resolutions, segmentation, pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import longscan
from longscan.core.errors import UserError
from longscan.core.training.finetuning import FinetuningConfig, freeze, layer_depths, layer_factors
from longscan.vision.card import VisionCard
from longscan.vision.data.pixels import LEVELS, START, shifted
from longscan.vision.generation import sample_images
from longscan.vision.tasks import ImageClassification, MixingConfig
from longscan.vision.tasks.base import build_model
from longscan.vision.tasks.metrics import ImageMetrics
from longscan.vision.tasks.mixing import Mixing
from longscan.vision.tasks.segmentation import SegmentationMetrics

VIM: dict[str, Any] = {"embed_dim": 16, "patch_size": 4, "d_state": 4, "depth": 3}


def test_normalisation_is_on_the_device_of_the_images() -> None:
    task = ImageClassification("Vim")
    task.card = VisionCard(img_size=(2, 2), mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    found = task.normalised(images)
    assert found.dtype == torch.float32
    assert torch.allclose(found[1, :, 0, 0], torch.tensor([0.9 / 0.5, 0.8, 0.35]))
    assert torch.allclose(found[0, :, 1, 1], torch.tensor([-0.2, -0.2, -0.15]))


def test_mixing_conserves_images_and_classes() -> None:
    """The mean of a batch stays under mixup, and targets are the shares that images have; odd batches keep the last."""
    np.random.seed(0)  # noqa: NPY002
    images = torch.arange(1.0, 6.0).view(5, 1, 1, 1).expand(5, 1, 8, 8).clone()
    labels = torch.tensor([0, 1, 2, 3, 0])
    mixing = Mixing(MixingConfig(mixup=1.0), 4, 0.0)
    mixed, targets = mixing(images.clone(), labels)
    assert mixed[:4].mean() == pytest.approx(2.5)
    assert mixed[4].mean() == 5
    assert torch.allclose(targets.sum(1), torch.ones(5))
    share = targets[0, 0]
    assert mixed[0].mean() == pytest.approx(float(share * 1 + (1 - share) * 4), rel=1e-5)
    assert targets[4].tolist() == [1, 0, 0, 0]


def test_cutmix_counts_pixels() -> None:
    np.random.seed(3)  # noqa: NPY002
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16).clone()
    mixed, targets = Mixing(MixingConfig(cutmix=1.0), 4, 0.0)(images, torch.arange(4))
    assert set(mixed[0].unique().tolist()) == {0.0, 3.0}
    assert float((mixed[0] == 0).float().mean()) == pytest.approx(float(targets[0, 0]))


def test_label_smoothing_without_mixing_is_torchs() -> None:
    logits, labels = torch.randn(6, 5), torch.randint(0, 5, (6,))
    _, targets = Mixing(MixingConfig(erasing=0.0), 5, 0.2)(torch.zeros(6, 1, 2, 2), labels)
    wanted = functional.cross_entropy(logits, labels, label_smoothing=0.2)
    assert torch.allclose(functional.cross_entropy(logits, targets), wanted)


def test_mixing_out_of_range() -> None:
    for options, message in (({"mixup": -1.0}, "mixing.mixup"), ({"erasing": 2.0}, "mixing.erasing")):
        with pytest.raises(UserError, match=message):
            MixingConfig(**options)


def test_metrics_by_hand() -> None:
    """Top 5 and the calibration error: two bins, of confidence 0.9 (2 of 3 right) and 0.6 (1 of 1 right)."""
    probabilities = torch.full((4, 7), 0.1 / 6)
    probabilities[:3, 0] = 0.9
    probabilities[3] = 0.4 / 6
    probabilities[3, 2] = 0.6
    metrics = ImageMetrics("test")
    labels = torch.tensor([0, 0, 6, 2])
    metrics.update(probabilities[:2].log(), labels[:2])
    metrics.update(probabilities[2:].log(), labels[2:])
    found = metrics.compute()
    assert found["accuracy"] == 0.75
    assert found["calibration_error"] == pytest.approx(0.75 * abs(0.9 - 2 / 3) + 0.25 * 0.4, abs=1e-5)
    assert found["accuracy_top5"] >= 0.75
    few = ImageMetrics("few")
    few.update(torch.randn(4, 3), torch.tensor([0, 1, 2, -100]))
    assert "accuracy_top5" not in few.compute()


def test_layer_wise_rates() -> None:
    model = longscan.create_model("Vim", img_size=8, num_classes=2, **VIM)
    factors = layer_factors(model, 0.5)
    assert factors["head.weight"] == factors["norm_f.weight"] == 1
    assert [factors[f"layers.{i}.mixer.A_log"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert factors["pos_embed"] == factors["patch_embed.proj.weight"] == 0.0625
    freeze(model, ["first:2"])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(name.startswith(("layers.2.", "norm_f.", "head.")) for name in trained)
    assert len({name.split(".")[0] for name in trained}) == 3
    with pytest.raises(UserError, match="the model has 3 blocks"):
        freeze(model, ["first:4"])


def test_layers_of_other_models() -> None:
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4}
    fitting = {"img_size": (8, 8), "in_chans": 3, "num_classes": 3}
    deit: Any = build_model("timm/deit_tiny_patch16_224", fitting, options)
    depths = layer_depths(deit)
    assert (depths["model.pos_embed"], depths["model.blocks.1.mlp.fc1.weight"], depths["model.head.bias"]) == (0, 2, 3)
    backbone = {"d_model": 8, "layers": ["vim"], "repeat": 2}
    pixels: Any = longscan.create_model("PixelClassifier", backbone=backbone)
    assert layer_depths(pixels)["encoder.weight"] == 0
    assert layer_depths(pixels)["backbone.layers.1.mixer.D"] == 2
    segmenter: Any = longscan.create_model("Segmenter", backbone="Vim", backbone_options=VIM, img_size=8, stages=2)
    assert layer_depths(segmenter)["classifier.bias"] == 4
    assert layer_depths(segmenter)["backbone.layers.0.mixer.D"] == 1


def test_models_of_timm(tmp_path: Any) -> None:
    """Trained, saved and read again, at another size too; positions are not decayed; unknown names are told."""
    options = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4, "drop_path_rate": 0.1}
    fitting = {"img_size": (8, 8), "in_chans": 1, "num_classes": 3, "class_names": ("a", "b", "c")}
    model: Any = build_model("timm/deit_tiny_patch16_224", fitting, options).eval()
    assert model.config.drop_path_rate == 0.1
    assert "model.pos_embed" in model.no_weight_decay()
    images = torch.randn(2, 1, 8, 8)
    wanted = model(images)
    assert wanted.shape == (2, 3)
    model.save_pretrained(tmp_path / "m")
    again: Any = longscan.from_pretrained(tmp_path / "m")
    assert torch.equal(again(images), wanted)
    assert again.config.class_names == ("a", "b", "c")
    larger: Any = longscan.from_pretrained(tmp_path / "m", img_size=16)
    assert larger(torch.randn(1, 1, 16, 16)).shape == (1, 3)
    assert torch.equal(larger.model.pos_embed[:, 0], model.model.pos_embed[:, 0])
    fresh: Any = longscan.from_pretrained(tmp_path / "m", num_classes=5, class_names=None)
    assert fresh(images).shape == (2, 5)
    convolution: Any = build_model("timm/resnet10t", {"img_size": (32, 32), "in_chans": 3, "num_classes": 2}, {})
    assert convolution.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 2)
    with pytest.raises(UserError, match="timm has no model 'diet_tiny'"):
        build_model("timm/diet_tiny", fitting, {})
    with pytest.raises(UserError, match="cannot be built with"):
        build_model("timm/deit_tiny_patch16_224", fitting, {"colour": 3})
    with pytest.raises(UserError, match=r"images are \(2, 3, 8, 8\)"):
        model(torch.randn(2, 3, 8, 8))


def test_pixels_are_read_in_the_order_asked_for() -> None:
    """A classifier that sees the end of the sequence alone, with a causal mixer of no memory to speak of."""
    backbone = {"d_model": 8, "layers": [{"name": "vim", "directions": "none"}], "repeat": 1}
    rows: Any = longscan.create_model("PixelClassifier", backbone=backbone, img_size=(2, 3), in_chans=1).eval()
    columns: Any = longscan.create_model(
        "PixelClassifier", backbone=backbone, img_size=(3, 2), in_chans=1, order="column"
    ).eval()
    columns.load_state_dict(rows.state_dict())
    image = torch.randn(2, 1, 2, 3)
    assert torch.allclose(rows(image), columns(image.transpose(2, 3)), atol=1e-6)
    assert not torch.allclose(rows(image), columns(image), atol=1e-3)
    assert rows.forward_features(image).shape == (2, 6, 8)


def test_segmentation_metrics_by_hand() -> None:
    metrics = SegmentationMetrics("test", 3, torch.device("cpu"))
    labels = torch.tensor([[[0, 0, 1, -100]]])
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 2]]]), 3).permute(0, 3, 1, 2).float() * 50
    metrics.update(logits, labels)
    found = metrics.compute()
    # Class 0: 1 of 2; class 1: 1 of 2; class 2 is nowhere but at the unknown pixel.
    assert found["miou"] == pytest.approx(0.5)
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_a_segmenter_learns() -> None:
    torch.manual_seed(0)
    options = {"embed_dim": 24, "depth": 2, "patch_size": 2, "d_state": 4}
    model: Any = longscan.create_model(
        "Segmenter", backbone="Vim", backbone_options=options, img_size=(8, 12), in_chans=1, stages=2, width=16
    )
    images = torch.rand(8, 1, 8, 12)
    labels = (images[:, 0] > 0.5).long()
    images = functional.interpolate(functional.interpolate(images, (4, 6)), (8, 12))
    labels = (images[:, 0] > 0.5).long()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model(images).shape == (8, 2, 8, 12)
    assert float((model(images).argmax(1) == labels).float().mean()) > 0.85


def test_drawn_images_have_the_likelihood_that_is_stated() -> None:
    backbone = {"d_model": 16, "layers": ["mamba"], "repeat": 1}
    model: Any = longscan.create_model("LanguageModel", backbone=backbone, vocab_size=LEVELS + 1, tie_embeddings=False)
    model.eval()
    images, bits = sample_images(model, 3, (2, 3), 3, seed=4)
    assert (images.shape, images.dtype) == ((3, 2, 3, 3), np.uint8)
    codes = torch.from_numpy(images.reshape(3, -1)).long()
    inputs = shifted(codes)
    assert (inputs[:, 0] == START).all()
    with torch.no_grad():
        scores = model(inputs).log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    assert bits == pytest.approx((-scores.mean(1) / math.log(2)).numpy(), rel=1e-4)
    again, _ = sample_images(model, 3, (2, 3), 3, seed=4)
    assert np.array_equal(again, images)


def test_data_that_the_weights_cannot_know() -> None:
    stored = VisionCard(img_size=(8, 8), class_names=("a", "b"))
    for changes, message in (
        ({"channels": 1}, "trained with data.channels 3"),
        ({"mean": (0.5, 0.5, 0.5)}, r"trained with data.mean \[0.485, 0.456, 0.406\]"),
        ({"class_names": ("a", "b", "c")}, "tells 2 classes apart, the data has 3; to train a new head"),
        ({"class_names": ("b", "a")}, "tells a, b apart, the data has the classes b, a"),
    ):
        found = VisionCard(**{"img_size": (8, 8), "class_names": ("a", "b"), **changes})  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message):
            ImageClassification("Vim").check_alike(found, stored)
    with pytest.raises(UserError, match=r"vision.json: unknown entry 'colour'"):
        VisionCard.from_dict({"img_size": [8, 8], "colour": 1})
    assert VisionCard.from_dict(stored.to_dict()) == stored


def test_fine_tuning_options_are_kept() -> None:
    task = ImageClassification("Vim", finetuning=FinetuningConfig(layer_decay=0.7))
    assert task.finetuning.layer_decay == 0.7
