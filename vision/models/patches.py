"""From images to patches, with patches that may overlap."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError

Pair = tuple[int, int]


def grid_size(image: Pair, patch: int, stride: int) -> Pair:
    """Return how many patches fit below and beside each other."""
    return (image[0] - patch) // stride + 1, (image[1] - patch) // stride + 1


class PatchEmbedding(nn.Module):
    """One convolution, ``proj``: images (batch, channels, height, width) to patches (batch, rows · columns, dim)."""

    def __init__(self, channels: int, dim: int, patch: int, stride: int) -> None:
        super().__init__()
        self.patch, self.stride = patch, stride
        self.proj = nn.Conv2d(channels, dim, patch, stride)

    def check(self, image: Pair, expected: Pair | None) -> None:
        """Raise unless images of this size are taken: those of ``expected``, or with ``None`` any that patches fill.

        Raises:
            UserError: with the sizes that are taken.
        """
        if expected is not None:
            if image != expected:
                raise UserError(
                    f"images are {image[0]} × {image[1]}, this model takes {expected[0]} × {expected[1]}; resize them, "
                    f"call set_input_size(({image[0]}, {image[1]})), or build it with dynamic_img_size=True"
                )
            return
        fits = [max(self.patch, side - (side - self.patch) % self.stride) for side in image]
        if fits != list(image):
            raise UserError(
                f"images are {image[0]} × {image[1]}; with patches of {self.patch} every {self.stride} pixels, sides "
                f"are {self.patch} + a multiple of {self.stride}: crop to {fits[0]} × {fits[1]}"
            )

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.proj(images).flatten(2).transpose(1, 2)


class ConvolutionalStem(PatchEmbedding):
    """Convolutions of 3 × 3 in place of one large patch (Xiao et al. 2021, arXiv:2106.14881).

    One at full resolution, then one of stride 2 for each halving until a token stands for ``stride`` pixels; widths
    double up to ``dim``, and batch norm and GELU follow all but the last, which is ``proj``.
    """

    def __init__(self, channels: int, dim: int, stride: int) -> None:
        super().__init__(channels, dim, stride, stride)
        halvings = stride.bit_length() - 1
        if stride < 2 or stride != 1 << halvings:
            raise UserError(f"patch_size is {stride}; a stem of convolutions halves, so it takes 2, 4, 8, 16, …")
        widths = [channels, *(max(16, dim >> (halvings - index)) for index in range(halvings)), dim]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(widths[:-1])):
            layers += [
                nn.Conv2d(before, after, 3, 2 if index else 1, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.GELU(),
            ]
        self.stem = nn.Sequential(*layers)
        self.proj = nn.Conv2d(widths[-2], dim, 3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """See `PatchEmbedding`."""
        if images.is_cuda:  # what its convolutions are fast in, and tokens then need no copy
            images = images.contiguous(memory_format=torch.channels_last)
        return super().forward(self.stem(images))


def resize_patches(weight: Tensor, size: int) -> Tensor:
    """Resize patch kernels (dim, channels, size, size) so that resized patches give the same tokens.

    The pseudo-inverse of bicubic resizing, FlexiViT's rule (Beyer et al. 2023, arXiv:2212.08013, section 3.4).
    """
    old = weight.shape[-1]
    if old == size:
        return weight
    basis = torch.eye(old * old, dtype=torch.float32, device=weight.device).view(-1, 1, old, old)
    resized = F.interpolate(basis, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    inverse = torch.linalg.pinv(resized.flatten(1).double())  # (new pixels, old pixels)
    kernels = weight.double().flatten(2) @ inverse.T
    return kernels.unflatten(-1, (size, size)).to(weight.dtype)


def change_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit kernels (dim, channels, …) to other image channels, as timm does: one is the sum of all, more repeat them."""
    old = weight.shape[1]
    if old == channels:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-channels // old)
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (old / channels)
