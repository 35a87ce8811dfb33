"""Augmentation of whole batches: a function of seed, epoch and image alone, and the operations are Pillow's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey
from longscan.vision.data.batch_augmentation import BatchAugmentation, uniform
from longscan.vision.data.batch_operations import OPERATIONS, apply_operations
from longscan.vision.data.classification import ImageClassificationDataModule
from longscan.vision.data.transforms import ImageAugmentation

FILL = torch.tensor([120.0, 110.0, 100.0])


def images(count: int = 16, size: tuple[int, int] = (24, 28)) -> Tensor:
    """Noise of low contrast, uint8."""
    generator = torch.Generator().manual_seed(0)
    return (40 + 150 * torch.rand(count, 3, *size, generator=generator) ** 2).to(torch.uint8)


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def applied(name: str, strength: float, negative: bool = False, batch: Tensor | None = None) -> Tensor:
    batch = images() if batch is None else batch
    kind = torch.full((len(batch),), OPERATIONS.index(name))
    return apply_operations(
        batch.float(), kind, torch.full((len(batch),), strength), torch.full((len(batch),), negative), FILL
    )


def test_an_image_does_not_depend_on_its_batch() -> None:
    augment, batch = BatchAugmentation(padding=2, operations=2), images()
    index = torch.arange(100, 116)
    whole = augment(batch, index, 3, 7, FILL)
    assert whole.dtype == torch.uint8
    for position in (0, 5, 15):
        alone = augment(batch[position : position + 1], index[position : position + 1], 3, 7, FILL)
        assert torch.equal(alone[0], whole[position])
    for epoch, seed in ((4, 7), (3, 8)):
        other = augment(batch, index, epoch, seed, FILL)
        assert sum(torch.equal(a, b) for a, b in zip(other, whole, strict=True)) <= 1


def test_draws_are_even_and_unrelated() -> None:
    draws = uniform(torch.arange(20000), epoch=3, seed=2**63 + 5, count=6)
    assert 0 <= draws.min() < 1e-3
    assert 1 - 1e-3 < draws.max() <= 1
    assert torch.allclose(draws.mean(0), torch.tensor(0.5), atol=0.01)
    assert torch.allclose(draws.std(0), torch.tensor(12**-0.5), atol=0.01)
    following = torch.cat([draws[:-1], draws[1:], uniform(torch.arange(20000), 4, 2**63 + 5, 6)[1:]], 1)
    assert (torch.corrcoef(following.T) - torch.eye(18)).abs().max() < 0.03


def test_crops_and_mirror_images_are_exact() -> None:
    """Every result is some window of the padded image or of its mirror image; all of them come up."""
    image = images(1, (4, 5))
    batch = image.expand(2000, -1, -1, -1)
    found = BatchAugmentation(padding=1, hflip=0.25)(batch, torch.arange(2000), 0, 0, FILL)
    windows = {}
    for mirrored in (False, True):
        padded = torch.nn.functional.pad(image[0].flip(-1) if mirrored else image[0], [1] * 4)
        for down in range(3):
            for right in range(3):
                windows[padded[:, down : down + 4, right : right + 5].numpy().tobytes()] = mirrored
    kinds = [windows[one.numpy().tobytes()] for one in found]
    assert len({one.numpy().tobytes() for one in found}) == 18
    assert np.mean(kinds) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(BatchAugmentation(hflip=0.0)(batch[:3], torch.arange(3), 0, 0, FILL), batch[:3])


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
@pytest.mark.parametrize("negative", [False, True])
def test_enhancements(name: str, negative: bool) -> None:
    """Those of Pillow with the factor 1 ± 0.9 · strength, but for its rounding."""
    found = applied(name, 0.5, negative)
    enhance = getattr(ImageEnhance, name.capitalize())
    for image, result in zip(images()[:4], found, strict=False):
        wanted = np.asarray(enhance(pillow(image)).enhance(1 - 0.45 if negative else 1 + 0.45)).transpose(2, 0, 1)
        assert np.abs(result.numpy() - wanted).max() < 1.5


def test_levels() -> None:
    batch = images()
    for image, equal, stretched, fewer, turned in zip(
        batch,
        applied("equalize", 1.0),
        applied("auto_contrast", 1.0),
        applied("posterize", 0.5),
        applied("solarize", 0.5),
        strict=True,
    ):
        original = pillow(image)
        assert np.array_equal(np.asarray(ImageOps.equalize(original)), equal.permute(1, 2, 0).numpy())
        wanted = np.asarray(ImageOps.autocontrast(original))
        assert np.abs(wanted - stretched.permute(1, 2, 0).numpy()).max() <= 1
        assert np.array_equal(np.asarray(ImageOps.posterize(original, 6)), fewer.permute(1, 2, 0).numpy())
        assert np.array_equal(np.asarray(ImageOps.solarize(original, 128)), turned.permute(1, 2, 0).numpy())
    level = torch.full((2, 3, 4, 4), 9, dtype=torch.uint8)
    for name in ("equalize", "auto_contrast"):
        assert torch.equal(applied(name, 1.0, batch=level), level.float())


def test_geometry() -> None:
    """Strength 1 turns by 30 degrees and shifts by 0.3 of the side; what is left empty has the fill's colour."""
    from torchvision.transforms.functional import InterpolationMode, rotate

    batch = images(4, (20, 12))
    assert torch.equal(applied("identity", 1.0, batch=batch), batch.float())
    middle = (slice(None), slice(None), slice(7, 13), slice(4, 8))
    wanted = rotate(batch.float(), 30.0, InterpolationMode.BILINEAR)[middle]
    assert torch.allclose(applied("rotate", 1.0, batch=batch)[middle], wanted, atol=1e-2)
    shifted = applied("translate_y", 0.5, batch=batch)
    assert torch.allclose(shifted[:, :, :-3], batch[:, :, 3:].float(), atol=1e-2)
    assert torch.allclose(shifted[:, :, -3:], FILL[:, None, None].expand(3, 3, 12), atol=1e-2)
    back = applied("translate_x", 5 / 6, True, batch=batch)
    assert torch.allclose(back[..., 3:], batch[..., :-3].float(), atol=1e-2)
    # A row at a distance d from the middle moves by 0.3 · d.
    sheared = applied("shear_x", 1.0, batch=torch.arange(12.0).expand(1, 3, 20, 12))
    assert sheared[0, 0, 15, 5] - sheared[0, 0, 5, 5] == pytest.approx(0.3 * 10, abs=1e-4)


def test_other_operations_are_left_alone() -> None:
    """In a batch every image gets its own operation."""
    batch = images(len(OPERATIONS))
    strength, negative = torch.full((len(batch),), 0.7), torch.zeros(len(batch), dtype=torch.bool)
    found = apply_operations(batch.float(), torch.arange(len(batch)), strength, negative, FILL)
    for number, name in enumerate(OPERATIONS):
        alone = applied(name, 0.7, batch=batch[number : number + 1])
        assert torch.equal(found[number], alone[0]), name
        assert torch.equal(alone[0], batch[number].float()) == (name == "identity")


def digits(**options: Any) -> ImageClassificationDataModule:
    return ImageClassificationDataModule(dataset="digits", channels=1, cache=True, batch_size=32, **options)


def test_the_data_module() -> None:
    """Training batches come whole and say what an augmentation must know; evaluation is as without."""
    data = digits(batch_augmentation=BatchAugmentation(padding=1, hflip=0.0), seed=3)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    plain = batch["input_ids"].clone()
    rows = data.train_set.pixels[batch["index"]]
    assert torch.equal(rows, plain)
    assert torch.equal(data.train_set.labels[batch["index"]], batch["labels"])
    after = data.on_after_batch_transfer(dict(batch), 0)
    assert set(after) == {"input_ids", "labels"}
    assert after["input_ids"].shape == plain.shape
    assert not torch.equal(after["input_ids"], plain)
    evaluation = next(iter(data.val_dataloader()[0]))
    assert set(evaluation) == {"input_ids", "labels"}
    uncached = ImageClassificationDataModule(dataset="digits", channels=1, batch_size=32, seed=3)
    uncached.setup("fit")
    other = next(iter(uncached.val_dataloader()[0]))
    assert torch.equal(other["input_ids"], evaluation["input_ids"])
    assert torch.equal(other["labels"], evaluation["labels"])
    assert torch.equal(data.val_set[3]["image"], uncached.val_set[3]["image"])
    assert data.val_set[3]["label"] == uncached.val_set[3]["label"]


def test_images_are_moved_where_they_are_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loader, unless processes load them or they are too many."""
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("meta")), global_rank=0, world_size=1, overfit_batches=0,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=None)),
    )  # fmt: skip
    for workers, most, place in ((0, 2**30, "meta"), (2, 2**30, "cpu"), (0, 1000, "cpu")):
        monkeypatch.setattr("longscan.vision.data.stacked.MOST_BYTES", most)
        data = digits(num_workers=workers)
        data.setup("fit")
        data.trainer = trainer  # type: ignore[assignment]
        data.train_dataloader()
        assert data.train_set.pixels.device.type == data.train_set.labels.device.type == place


@pytest.mark.gpu
def test_batches_of_images_that_lie_on_a_gpu() -> None:
    data = digits(batch_augmentation=BatchAugmentation(padding=1, hflip=0.0), seed=3)
    data.setup("fit")
    keys = [SampleKey(2, index) for index in (5, 0, 17)]
    expected = data.train_set.__getitems__(keys)
    assert data.train_set.move(torch.device("cuda"))
    found = data.train_set.__getitems__(keys)
    assert found.pop("epoch") == expected.pop("epoch") == 2
    assert all(tensor.is_cuda for tensor in found.values())
    assert all(torch.equal(tensor.cpu(), expected[name]) for name, tensor in found.items())


def test_images_of_another_size_are_resized_once() -> None:
    data, uncached = digits(img_size=12), ImageClassificationDataModule(dataset="digits", channels=1, img_size=12)
    for module in (data, uncached):
        module.setup("validate")
    assert torch.equal(data.val_set.pixels[5], uncached.val_set[5]["image"])


def test_refused() -> None:
    augment = BatchAugmentation()
    with pytest.raises(UserError, match=r"exclude each other; give one"):
        digits(batch_augmentation=augment, augmentation=ImageAugmentation())
    with pytest.raises(UserError, match=r"set data\.cache true"):
        ImageClassificationDataModule(dataset="digits", channels=1, batch_augmentation=augment)
    for options in ({"padding": -1}, {"hflip": 1.5}, {"magnitude": 2.0}, {"operations": -1}):
        with pytest.raises(UserError, match=next(iter(options))):
            BatchAugmentation(**options)  # type: ignore[arg-type]
