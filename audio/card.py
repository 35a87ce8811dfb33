"""What a model was trained on: rate, codes, classes, controls; kept with its weights, so no verb has to be told."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..core.errors import UserError, nearest

#: Name of the file beside the weights.
CARD_FILE = "audio.json"


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control of an effect: what a user sets, and how it becomes the 0 … 1 that a model reads.

    Args:
        name: of the control.
        low: the value that is 0.
        high: the value that is 1.
        scale: whether values between are spaced ``"linear"`` or ``"logarithmic"``.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    scale: Literal["linear", "logarithmic"] = "linear"

    def scaled(self, value: float) -> float:
        """Return ``value`` in 0 … 1.

        Raises:
            UserError: it is outside of what the model was trained on, or not a number.
        """
        if not self.low <= value <= self.high:
            raise UserError(
                f"control {self.name}: {value:g} is outside of {self.low:g} … {self.high:g}, which the model was "
                "trained on; give a value between"
            )
        if self.scale == "logarithmic":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class AudioCard:
    """What a model reads and what its outputs mean.

    Args:
        sample_rate: of the recordings it was trained on, in hertz.
        decimation: every so-many-th of their samples was kept.
        channels: of a recording.
        length: frames of a training window; None where recordings were whole.
        quantizer: arguments of :class:`longscan.audio.quantization.Quantizer`, for a model of codes.
        class_names: in the order of the logits, for a classifier.
        normalize, padding, mask_padding, features: as of
            :class:`longscan.audio.data.classification.AudioClassificationDataModule`.
        controls: of an effect, in order.
    """

    sample_rate: int
    decimation: int = 1
    channels: int = 1
    length: int | None = None
    quantizer: Mapping[str, Any] | None = None
    class_names: Sequence[str] | None = None
    normalize: str = "none"
    padding: str = "end"
    mask_padding: bool = True
    features: Mapping[str, Any] | None = None
    controls: Sequence[Control] = ()

    @property
    def model_rate(self) -> float:
        """Samples per second that the model was trained on."""
        return self.sample_rate / self.decimation

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = CARD_FILE) -> AudioCard:
        """Return the card that :meth:`to_dict` described.

        Raises:
            UserError: an entry that there is not, or a missing sample rate; names ``where``.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise UserError(f"{where}: unknown entry {name!r} ({nearest(name, known)}); is it of another version?")
        if "sample_rate" not in values:
            raise UserError(f"{where}: has no sample_rate; add it")
        controls = tuple(Control(**control) for control in values.get("controls", ()))
        return cls(**{**values, "controls": controls})

    def control_values(self, given: Mapping[str, float]) -> list[float]:
        """Return the controls in order, in 0 … 1, for values by name.

        Raises:
            UserError: a name that there is not, one that is missing, or a value out of range.
        """
        names = [control.name for control in self.controls]
        for name in given:
            if name not in names:
                raise UserError(f"the model has no control {name!r} ({nearest(name, names)})")
        missing = [control for control in self.controls if control.name not in given]
        if missing:
            wanted = " ".join(f"--control {control.name}={control.low:g}…{control.high:g}" for control in missing)
            raise UserError(f"controls are missing; give {wanted}")
        return [control.scaled(given[control.name]) for control in self.controls]


def read_card(folder: Path) -> AudioCard | None:
    """Return the card of a model's folder or training checkpoint; None where it has none.

    Raises:
        UserError: a file that is no card.
    """
    from ..core.checkpoint_files import load_torch_file, read_json

    if folder.is_dir():
        path = folder / CARD_FILE
        return AudioCard.from_dict(read_json(path), str(path)) if path.is_file() else None
    if folder.suffix != ".ckpt":
        return None
    stored = load_torch_file(folder).get("longscan", {}).get("model", {}).get("audio")
    return None if stored is None else AudioCard.from_dict(stored, str(folder))


def write_card(card: AudioCard, folder: Path) -> Path:
    """Write the card beside the weights of a model, and return its path."""
    from ..core.files import replacing

    with replacing(folder / CARD_FILE) as path:
        path.write_text(json.dumps(card.to_dict(), indent=2) + "\n", encoding="utf-8")
    return folder / CARD_FILE
