"""The operations of RandAugment on batches of images, each image by another one and with a strength of its own.

Every operation is computed for the whole batch and kept where it was chosen: small images on a GPU take less time than
sorting them would.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: In the order of their numbers.
OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)
_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}

#: What strength 1 means: shear as a slope, shifts as a share of the side, rotation in degrees, blending by 1 ± 0.9,
#: bits that posterize takes away.
SHEAR, SHIFT, DEGREES, BLEND, BITS = 0.3, 0.3, 30.0, 0.9, 4


def apply_operations(images: Tensor, kind: Tensor, strength: Tensor, negative: Tensor, fill: Tensor) -> Tensor:
    """Return float32 images (batch, channels, height, width), 0 … 255, each after its operation.

    Args:
        images: the same.
        kind: number of each one's operation in `OPERATIONS`, int64 (batch,).
        strength: of each, 0 … 1 (batch,).
        negative: the other way round (left for right, darker for brighter), bool (batch,).
        fill: value of each channel (channels,) for what geometric operations leave empty.
    """
    signed = torch.where(negative, -strength, strength)

    def chosen(name: str) -> Tensor:
        return (kind == _NUMBER[name])[:, None, None, None]

    result = _moved(images, kind, signed, fill)
    geometric = (kind >= _NUMBER["shear_x"]) & (kind <= _NUMBER["rotate"])
    images = torch.where(geometric[:, None, None, None], result, images)
    images = torch.where(
        ((kind >= _NUMBER["brightness"]) & (kind <= _NUMBER["sharpness"]))[:, None, None, None],
        _blended(images, kind, 1 + BLEND * signed),
        images,
    )
    images = torch.where(chosen("posterize"), _posterized(images, strength), images)
    threshold = (256 * (1 - strength))[:, None, None, None]
    images = torch.where(chosen("solarize") & (images >= threshold), 255 - images, images)
    images = torch.where(chosen("auto_contrast"), _stretched(images), images)
    return torch.where(chosen("equalize"), equalized(images), images)


def _moved(images: Tensor, kind: Tensor, signed: Tensor, fill: Tensor) -> Tensor:
    """Shear, shift or rotate about the middle, bilinear."""

    def amount(name: str, most: float) -> Tensor:
        return torch.where(kind == _NUMBER[name], signed * most, 0.0)

    height, width = images.shape[2:]
    angle = amount("rotate", math.radians(DEGREES))
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # In grid_sample's coordinates both sides have length 2, whatever their pixels.
    rows = [
        [
            cosine,
            amount("shear_x", SHEAR) * (height / width) - sine * (height / width),
            amount("translate_x", 2 * SHIFT),
        ],
        [
            amount("shear_y", SHEAR) * (width / height) + sine * (width / height),
            cosine,
            amount("translate_y", 2 * SHIFT),
        ],
    ]
    places = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)
    grid = F.affine_grid(places, list(images.shape), align_corners=False)
    level = fill.to(images.dtype)[:, None, None]
    return F.grid_sample(images - level, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + level


def _blended(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Brightness, colour, contrast, sharpness: away from black, grey, the mean, a smoothed image, or towards it."""
    grey = _grey(images)
    base = torch.zeros_like(images)
    base = torch.where((kind == _NUMBER["color"])[:, None, None, None], grey, base)
    base = torch.where(
        (kind == _NUMBER["contrast"])[:, None, None, None], grey.mean((2, 3), keepdim=True).round(), base
    )
    base = torch.where((kind == _NUMBER["sharpness"])[:, None, None, None], _smoothed(images), base)
    return (base + factor[:, None, None, None] * (images - base)).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601), one channel."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def _smoothed(images: Tensor) -> Tensor:
    """Pillow's smoothing by 3 × 3 (5 in the middle, 1 around), borders as they are."""
    channels = images.shape[1]
    kernel = torch.ones(channels, 1, 3, 3, device=images.device) / 13
    kernel[:, :, 1, 1] = 5 / 13
    if min(images.shape[2:]) < 3:
        return images
    result = images.clone()
    with torch.autocast(images.device.type, enabled=False):
        result[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=channels)
    return result


def _posterized(images: Tensor, strength: Tensor) -> Tensor:
    """Keep the upper bits alone."""
    step = torch.exp2((strength * BITS).round())[:, None, None, None]
    return (images / step).floor() * step


def _stretched(images: Tensor) -> Tensor:
    """Stretch each channel to 0 … 255."""
    lowest, highest = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    scale = 255 / (highest - lowest).clamp(min=1)
    return torch.where(highest - lowest < 1, images, (images - lowest) * scale)


def equalized(images: Tensor) -> Tensor:
    """Make all values of each channel about equally frequent, as Pillow does."""
    levels = images.round().clamp(0, 255).long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, device=images.device).scatter_add_(
        2, levels, torch.ones((), device=images.device).expand(levels.shape)
    )
    last = counts.gather(2, levels.amax(2, keepdim=True))
    step = ((levels.shape[2] - last) / 255).floor()
    before = counts.cumsum(2) - counts
    table = (((step / 2).floor() + before) / step.clamp(min=1)).floor().clamp(max=255)
    return torch.where(step > 0, table.gather(2, levels), levels.float()).view_as(images)
