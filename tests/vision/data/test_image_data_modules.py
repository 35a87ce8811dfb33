"""The data modules of images: splits, sizes, augmentation that is a function of the seed, restarts in mid-epoch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import write_image, write_pairs
from PIL import Image

from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey
from longscan.vision.data.classification import ImageClassificationDataModule
from longscan.vision.data.masks import read_pairs
from longscan.vision.data.pixels import START, PixelSequenceDataModule, to_images
from longscan.vision.data.segmentation import SegmentationDataModule
from longscan.vision.data.transforms import ImageAugmentation, evaluation_transform, seeded, training_transform


def digits(**options: Any) -> ImageClassificationDataModule:
    return ImageClassificationDataModule(dataset="digits", channels=1, **options)


def test_a_stratified_split() -> None:
    parts = digits(test_fraction=0.2, val_fraction=0.1).splits()
    assert [len(parts[name]) for name in ("train", "val", "test")] == [1295, 143, 359]
    rows = np.concatenate([part.rows for part in parts.values()])
    assert sorted(rows.tolist()) == list(range(1797))
    for label in range(10):
        counts = [int((part.labels == label).sum()) for part in parts.values()]  # type: ignore[arg-type]
        assert counts[2] == pytest.approx(0.2 * sum(counts), abs=0.5)
    again, other = digits().splits()["test"].rows, digits(seed=1).splits()["test"].rows
    assert np.array_equal(again, parts["test"].rows)
    assert not np.array_equal(other, again)


def test_the_natural_order() -> None:
    """The last fifth, by other writers, is tested on."""
    parts = digits(split="sorted").splits()
    assert parts["test"].rows.tolist() == list(range(1438, 1797))
    assert set(parts["val"].rows) | set(parts["train"].rows) == set(range(1438))


def test_a_batch() -> None:
    data = digits(batch_size=5)
    data.setup("fit")
    assert (data.img_size, data.crop_pct, data.num_classes) == ((8, 8), 1.0, 10)
    batch = next(iter(data.train_dataloader()))
    assert (batch["input_ids"].dtype, batch["input_ids"].shape) == (torch.uint8, (5, 1, 8, 8))
    assert batch["labels"].dtype == torch.int64
    first = data.val_set[0]
    assert np.array_equal(first["image"][0].numpy(), np.asarray(data.val_set.images.read(0, 1)))


def test_timms_evaluation(tmp_path: Path) -> None:
    """The shorter side to the size over crop_pct, bicubic, then the middle: as published models are measured."""
    write_image(tmp_path / "i.png", (40, 30))
    image = Image.open(tmp_path / "i.png")
    found = evaluation_transform((16, 16), 3, crop_pct=0.8)(image)
    resized = image.resize((26, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(resized.crop((5, 2, 21, 18))))


AUGMENTATION = ImageAugmentation(crop="pad", padding=2, auto_augment="rand-m9-mstd0.5-inc1", degrees=10)


def test_augmentation_is_a_function_of_seed_and_key(tmp_path: Path) -> None:
    for index in range(8):
        write_image(tmp_path / str(index % 2) / f"{index}.png", (12, 12), level=60)
    how: Any = {"folder": str(tmp_path), "img_size": 12, "val_fraction": 0.0, "test_fraction": 0.0}
    data = ImageClassificationDataModule(augmentation=AUGMENTATION, **how)
    data.setup("fit")
    keys = [SampleKey(epoch, index) for epoch in range(2) for index in range(8)]
    first = [data.train_set[key]["image"] for key in keys]
    torch.manual_seed(5)
    random.seed(5)
    backwards = [data.train_set[key]["image"] for key in reversed(keys)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, backwards, strict=True))
    assert sum(torch.equal(first[index], first[index + 8]) for index in range(8)) < 4
    other = ImageClassificationDataModule(augmentation=AUGMENTATION, seed=1, **how)
    other.setup("fit")
    assert sum(torch.equal(other.train_set[key]["image"], a) for key, a in zip(keys, first, strict=True)) < 8


def test_loader_processes_give_the_same_images(tmp_path: Path) -> None:
    for index in range(8):
        write_image(tmp_path / str(index % 2) / f"{index}.png", (12, 12), level=60)
    how: Any = {"folder": str(tmp_path), "img_size": 12, "val_fraction": 0.0, "test_fraction": 0.0, "batch_size": 3}
    batches = []
    for workers in (0, 1):
        data = ImageClassificationDataModule(augmentation=AUGMENTATION, num_workers=workers, **how)
        data.setup("fit")
        batches.append([batch["input_ids"] for batch in data.train_dataloader()])
    assert [len(batch) for batch in batches[0]] == [3, 3, 2]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_random_generators_are_put_back() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    wanted = draws()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    with seeded(7):
        inside = draws()
    assert draws() == wanted
    with seeded(7):
        assert draws() == inside


def test_a_padded_crop_is_a_shift() -> None:
    image = Image.fromarray(np.arange(1, 37, dtype=np.uint8).reshape(6, 6))
    transform = training_transform((6, 6), 1, ImageAugmentation(crop="pad", padding=1, hflip=0), (0.5,), crop_pct=1.0)
    padded = np.pad(np.asarray(image), 1)
    shifts = {padded[y : y + 6, x : x + 6].tobytes() for y in range(3) for x in range(3)}
    seen = set()
    for seed in range(60):
        with seeded(seed):
            seen.add(transform(image)[0].numpy().tobytes())
    assert seen == shifts


def test_training_restarts_in_mid_epoch() -> None:
    def batches(data: ImageClassificationDataModule) -> list[torch.Tensor]:
        return [batch["input_ids"] for batch in data.train_dataloader()]

    how: Any = {"augmentation": ImageAugmentation(crop="none", degrees=20), "batch_size": 8, "limit_train": 40}
    data = digits(**how)
    data.setup("fit")
    whole = batches(data)
    again = digits(**how)
    again.setup("fit")
    state = again.state_dict() | {"batch": 3}
    again.load_state_dict(state)
    rest = batches(again)
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "digit"}, "unknown dataset 'digit'"),
        ({}, "no data: give dataset, folder, archive, reader or predict"),
        ({"dataset": "digits", "folder": "x"}, "dataset and folder exclude each other"),
        ({"dataset": "digits", "channels": 2}, "channels is 2"),
        ({"dataset": "digits", "channels": 1, "mean": [0.5, 0.5]}, "mean has 2 values for 1 channels"),
        ({"dataset": "digits", "channels": 1, "std": [0.0]}, "each must be above 0"),
        ({"dataset": "digits", "img_size": [8, 8, 8]}, "expected a number of pixels, or height and width"),
        ({"dataset": "digits", "split": "rand"}, "split='rand' is unknown"),
        ({"dataset": "digits", "interpolation": "cubic"}, "interpolation is 'cubic'"),
        ({"dataset": "digits", "val_fraction": 0.6, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"archive": "none.tar.gz"}, "no such archive"),
        ({"dataset": "digits", "class_names": ["a", " "]}, "a name is empty"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageClassificationDataModule(**options).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoom": (1.2, 0.8)}, r"augmentation.zoom is \[1.2, 0.8\]"),
        ({"zoom": (0.0, 1.0)}, "augmentation.zoom"),
        ({"scale": (0.5, 2.0)}, r"augmentation.scale is .* highest ≤ 1"),
        ({"ratio": (-1.0, 1.0)}, "augmentation.ratio"),
    ],
)
def test_ranges_of_augmentation(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageAugmentation(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.5}, "val_fraction is 1.5"),
        ({"hflip": -0.1}, "hflip is -0.1"),
        ({"std": [1.0, 0.0, 1.0]}, "each must be above 0"),
        ({"mean": [0.5]}, "mean has 1 values for 3 channels"),
    ],
)
def test_options_of_segmentation_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SegmentationDataModule("folder", ["back", "front"], **options)


def test_policies_that_timm_does_not_know() -> None:
    with pytest.raises(UserError, match="auto_augment='rand-z9': timm refuses it"):
        training_transform((8, 8), 3, ImageAugmentation(auto_augment="rand-z9"), (0.5, 0.5, 0.5))
    with pytest.raises(UserError, match="needs images of 3 channels"):
        training_transform((8, 8), 1, ImageAugmentation(auto_augment="rand-m9"), (0.5,))


def test_one_class_is_none(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / "only" / f"{index}.png")
    with pytest.raises(UserError, match="only one class, 'only'"):
        _ = ImageClassificationDataModule(folder=str(tmp_path)).class_names


def test_pairs_of_images_and_masks(tmp_path: Path) -> None:
    write_pairs(tmp_path, 10)
    data = SegmentationDataModule(str(tmp_path), ["back", "front"], img_size=[16, 24], scale=None, hflip=0.0)
    data.setup(None)
    assert [len(part) for part in data.pairs().values()] == [8, 1, 1]
    sample = data.train_set[0]
    number = int(data.train_set.pairs.images[0].stem)
    assert sample["mask"].sum() == 80
    assert sample["mask"][4:12, 2 + number : 12 + number].all()
    assert (sample["image"][:, sample["mask"] == 1] >= 150).all()
    moved = SegmentationDataModule(str(tmp_path), ["back", "front"], img_size=[16, 24])
    moved.setup("fit")
    batch = next(iter(moved.train_dataloader()))
    assert (batch["input_ids"].shape, batch["labels"].shape) == ((8, 3, 16, 24), (8, 16, 24))
    bright = batch["input_ids"].float().mean(1)
    assert bright[batch["labels"] == 1].mean() > bright[batch["labels"] == 0].mean() + 100


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    write_pairs(tmp_path, 3)
    pairs = read_pairs(tmp_path)
    Image.fromarray(np.zeros((16, 23), np.uint8)).save(tmp_path / "masks" / "0.png")
    with pytest.raises(UserError, match=r"masks/0.png: the mask has 23 x 16 pixels, its image 0.png 24 x 16"):
        pairs.read(0, 2)
    Image.fromarray(np.full((16, 24), 2, np.uint8)).save(tmp_path / "masks" / "1.png")
    with pytest.raises(UserError, match=r"masks/1.png: has the value 2, but there are 2 classes"):
        pairs.read(1, 2)
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "masks" / "2.png")
    with pytest.raises(UserError, match=r"masks/2.png: a mask needs class indices"):
        pairs.read(2, 2)
    (tmp_path / "masks" / "2.png").unlink()
    with pytest.raises(UserError, match=r"images/2.png: the image has no counterpart"):
        read_pairs(tmp_path)


def test_images_as_sequences() -> None:
    data = PixelSequenceDataModule(dataset="digits", channels=1, batch_size=4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].shape == (4, 64)
    assert (batch["input_ids"][:, 0] == START).all()
    assert torch.equal(batch["input_ids"][:, 1:], batch["labels"][:, :-1])
    image = np.asarray(data.val_set.images.read(0, 1))
    codes = data.val_set[0]["labels"].numpy()
    assert np.array_equal(to_images(codes[None], (8, 8), 1)[0, :, :, 0], image)
