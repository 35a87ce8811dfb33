"""What a model was trained on: rate, codes, classes, controls; kept with its weights, so no verb has to be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..core.data_card import DataCard
from ..core.errors import UserError, nearest


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
class AudioCard(DataCard):
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

    domain: ClassVar[str] = "audio"
    required: ClassVar[tuple[str, ...]] = ("sample_rate",)

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

    @classmethod
    def parsed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the constructor for plain values."""
        return {**values, "controls": tuple(Control(**control) for control in values.get("controls", ()))}

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
