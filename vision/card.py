"""What a model of images was trained on: size, channels, normalisation, classes; kept with its weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError, nearest

#: Name of the file beside the weights.
CARD_FILE = "vision.json"

#: Mean and standard deviation of ImageNet's channels, of values between 0 and 1.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class VisionCard:
    """What a model reads and what its outputs mean.

    Args:
        img_size: height and width that images are brought to, in pixels.
        channels: 3 (red, green, blue) or 1 (grey).
        class_names: in the order of the logits, for a classifier or a segmentation.
        mean: of each channel, of values between 0 and 1; subtracted.
        std: standard deviation of each channel; divided by.
        interpolation: by which images are resized.
        crop_pct: side of the central crop over the side that images are resized to.
    """

    img_size: tuple[int, int]
    channels: int = 3
    class_names: Sequence[str] | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: float = 0.875

    def __post_init__(self) -> None:
        object.__setattr__(self, "img_size", tuple(self.img_size))
        for name in ("class_names", "mean", "std"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = CARD_FILE) -> VisionCard:
        """Return the card that :meth:`to_dict` described.

        Raises:
            UserError: an entry that there is not, or a missing size; names ``where``.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise UserError(f"{where}: unknown entry {name!r} ({nearest(name, known)}); is it of another version?")
        if "img_size" not in values:
            raise UserError(f"{where}: has no img_size; add it")
        return cls(**values)


def read_card(place: Path) -> VisionCard | None:
    """Return the card of a model's folder or training checkpoint; None where it has none.

    Raises:
        UserError: a file that is no card.
    """
    from ..core.checkpoint_files import load_torch_file, read_json

    if place.is_dir():
        path = place / CARD_FILE
        return VisionCard.from_dict(read_json(path), str(path)) if path.is_file() else None
    if place.suffix != ".ckpt":
        return None
    stored = load_torch_file(place).get("longscan", {}).get("model", {}).get("vision")
    return None if stored is None else VisionCard.from_dict(stored, str(place))


def write_card(card: VisionCard, folder: Path) -> Path:
    """Write the card beside the weights of a model, and return its path."""
    from ..core.files import replacing

    with replacing(folder / CARD_FILE) as path:
        path.write_text(json.dumps(card.to_dict(), indent=2) + "\n", encoding="utf-8")
    return folder / CARD_FILE
