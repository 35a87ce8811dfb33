"""New images from autoregressive models, through the token-by-token loop that all domains share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..core.generation import generate
from .data.pixels import LEVELS, START, to_images


@torch.inference_mode()
def sample_images(
    model: Any,
    count: int,
    size: tuple[int, int],
    channels: int = 3,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    **sampling: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw images intensity by intensity.

    Args:
        model: of codes, with ``prefill`` and ``step``, as `PixelModeling` trains it.
        count: images.
        size: height and width.
        channels: of a pixel.
        seed: of the draw.
        device: of the model.
        sampling: ``temperature``, ``top_k``, ``top_p``, ``greedy`` of :func:`longscan.core.generation.generate`.

    Returns:
        The images, uint8 (count, height, width, channels), and their bits per dimension under the model (count,).
    """
    start = torch.full((count, 1), START, dtype=torch.int64, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    length = size[0] * size[1] * channels
    # The start code is no intensity.
    codes, scores = generate(model, start, length, allowed=range(LEVELS), generator=generator, **sampling)
    bits = -scores.double().mean(1).cpu().numpy() / np.log(2)
    return to_images(codes[:, 1:].cpu().numpy(), size, channels), bits
