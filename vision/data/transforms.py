"""What is done to images before a model sees them: timm's transforms, their randomness a function of a seed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError

Crop = Literal["resized", "pad", "none"]
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "random")


@dataclass(frozen=True)
class ImageAugmentation:
    """What is changed at random in training images, each time anew.

    Args:
        crop: ``"resized"``: a part of random area and shape, resized (Inception's crop); ``"pad"``: of the image with
            ``padding`` pixels around, a part of the image's size, as is usual for CIFAR; ``"none"``: as in evaluation.
        scale: area of a resized crop, as a share of the image.
        ratio: width over height of a resized crop.
        padding: of the crop ``"pad"``, on each side; black.
        hflip: probability of a mirror image.
        vflip: probability of turning it upside down.
        color_jitter: of brightness, contrast and saturation; without effect beside ``auto_augment``, as in timm.
        auto_augment: timm's policy: ``"rand-m9-mstd0.5-inc1"`` (RandAugment), ``"augmix-m5-w4-d2"``, ``"original"``, …
        degrees: rotation by up to so much, either way.
        translate: shift by up to this share of the sides.
        zoom: lowest and highest factor of a random scale.
        interpolation: of resized crops; timm's ``"random"`` takes bilinear or bicubic.
    """

    crop: Crop = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: int = 4
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0
    auto_augment: str | None = None
    degrees: float = 0.0
    translate: float = 0.0
    zoom: tuple[float, float] | None = None
    interpolation: str = "random"

    def __post_init__(self) -> None:
        if self.crop not in ("resized", "pad", "none"):
            raise UserError(f"augmentation.crop is {self.crop!r}; expected 'resized', 'pad' or 'none'")
        for name in ("hflip", "vflip", "translate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augmentation.{name} is {getattr(self, name)}; expected 0 … 1")
        if self.padding < 0 or self.degrees < 0 or self.color_jitter < 0:
            raise UserError("augmentation: padding, degrees and color_jitter must not be negative")
        for name, highest in (("scale", 1.0), ("ratio", None), ("zoom", None)):
            pair = getattr(self, name)
            if pair is not None and not 0 < pair[0] <= pair[1] <= (highest or pair[1]):
                raise UserError(
                    f"augmentation.{name} is {list(pair)}; expected 0 < lowest ≤ highest{' ≤ 1' if highest else ''}"
                )
        check_interpolation(self.interpolation)


def check_interpolation(name: str, *, random: bool = True) -> None:
    """Check the name of an interpolation.

    Raises:
        UserError: it is unknown.
    """
    known = _INTERPOLATIONS if random else _INTERPOLATIONS[:-1]
    if name not in known:
        raise UserError(f"interpolation is {name!r}; expected one of {', '.join(known)}")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block the global generators of Python, NumPy and torch (CPU), which timm's transforms draw from, are
    functions of ``seed`` (0 … 2⁶³ − 1); afterwards they are as before, but in loader processes, where nothing else
    draws from them."""
    if torch.utils.data.get_worker_info() is not None:
        _seed(seed)
        yield
        return
    python, numpy_state, generator = random.getstate(), np.random.get_state(), torch.default_generator  # noqa: NPY002
    torch_state = generator.get_state()
    _seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002
        generator.set_state(torch_state)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)


def evaluation_transform(
    size: tuple[int, int], channels: int, *, interpolation: str = "bicubic", crop_pct: float = 0.875
) -> Callable[[Any], Tensor]:
    """Return what makes uint8 (channels, height, width) of a ``PIL`` image: its shorter side is resized to that of
    ``size`` over ``crop_pct``, and the middle is taken (timm's evaluation)."""
    _check_timm()
    from timm.data import create_transform

    transform: Any = create_transform(
        (channels, *size), is_training=False, use_prefetcher=True, interpolation=interpolation, crop_pct=crop_pct
    )
    return transform


def training_transform(
    size: tuple[int, int],
    channels: int,
    augmentation: ImageAugmentation,
    mean: Sequence[float],
    *,
    interpolation: str = "bicubic",
    crop_pct: float = 0.875,
) -> Callable[[Any], Tensor]:
    """Return what makes uint8 (channels, height, width) of a ``PIL`` image, with ``augmentation``; it draws from
    the global generators (see `seeded`). ``mean`` fills what a policy's rotations leave empty."""
    _check_timm()
    from timm.data import create_transform
    from torchvision import transforms

    if channels == 1 and augmentation.auto_augment is not None:
        raise UserError("augmentation.auto_augment needs images of 3 channels; set data.channels 3")
    try:
        stages: Any = create_transform(
            (channels, *size),
            is_training=True,
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            hflip=augmentation.hflip,
            vflip=augmentation.vflip,
            color_jitter=augmentation.color_jitter or None,  # type: ignore[arg-type]
            auto_augment=augmentation.auto_augment,
            interpolation=augmentation.interpolation,
            mean=tuple(mean),
            use_prefetcher=True,
            separate=True,
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise UserError(
            f"augmentation.auto_augment={augmentation.auto_augment!r}: timm refuses it ({error})"
        ) from error
    first, policy, final = stages
    parts: list[Any] = list(first.transforms)
    if augmentation.crop != "resized":
        evaluation: Any = evaluation_transform(size, channels, interpolation=interpolation, crop_pct=crop_pct)
        fitted = [part for part in evaluation.transforms if not _makes_tensor(part)]
        padded = [transforms.RandomCrop(size, padding=augmentation.padding)] if augmentation.crop == "pad" else []
        parts = [*fitted, *padded, *parts[1:]]
    if augmentation.degrees or augmentation.translate or augmentation.zoom:
        parts.append(
            transforms.RandomAffine(
                augmentation.degrees,
                translate=(augmentation.translate, augmentation.translate),
                scale=augmentation.zoom,
                interpolation=transforms.InterpolationMode.BILINEAR,
            )
        )
    return transforms.Compose([*parts, *policy.transforms, *final.transforms])


def _makes_tensor(part: Any) -> bool:
    return "Tensor" in type(part).__name__ or "Numpy" in type(part).__name__


def _check_timm() -> None:
    try:
        import timm.data  # noqa: F401
    except ImportError as error:
        raise UserError("images are prepared by timm and torchvision; pip install 'longscan[vision]'") from error
