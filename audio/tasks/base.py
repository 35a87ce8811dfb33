"""What the tasks of audio have in common: the model is built for the data, and its card is kept with its weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...core.errors import UserError
from ...core.training.card_task import CardTask
from ..card import AudioCard, Control
from ..quantization import Quantizer


class AudioTask(CardTask[AudioCard]):
    """A task of recordings.

    Parameters of state spaces declare a learning rate of their own and no decay (``_optim``), which the optimiser's
    groups follow.

    Args:
        model, options, pretrained, optimizer, schedule, finetuning: as for `CardTask`.
    """

    card_type = AudioCard
    #: Whether the model is evaluated on data of another rate than that of its training.
    any_rate = False

    def describe(self, data: Any, *, complete: bool = True) -> AudioCard:
        """Return the card of a data module of `longscan.audio.data`.

        Raises:
            UserError: something is wrong with the data; or its classes are unknown and ``complete``.
        """
        quantizer, features = getattr(data, "quantizer", None), getattr(data, "features", None)
        return AudioCard(
            sample_rate=data.sample_rate,
            decimation=getattr(data, "decimation", 1),
            channels=data.format.channels or 1,
            length=getattr(data, "length", None),
            quantizer=None if quantizer is None else dataclasses.asdict(quantizer),
            class_names=_class_names(data, complete),
            normalize=getattr(data, "normalize", "none"),
            padding=getattr(data, "padding", "end"),
            mask_padding=getattr(data, "mask_padding", True),
            features=None if features is None else dataclasses.asdict(features),
            controls=_controls(data),
        )

    def check_alike(self, found: AudioCard, stored: AudioCard) -> None:
        """Refuse data that the weights cannot have been trained on.

        Raises:
            UserError: with the settings to change.
        """
        if found.model_rate != stored.model_rate and not self.any_rate:
            raise UserError(
                f"the model was trained at {stored.model_rate:g} Hz, the data has {found.model_rate:g} Hz; set "
                f"data.sample_rate {stored.sample_rate} and data.resample true"
            )
        for name in ("quantizer", "features", "channels", "normalize"):
            wanted = getattr(stored, name)
            if getattr(found, name) != wanted:
                raise UserError(f"the model was trained with data.{name} {wanted}, the data has {getattr(found, name)}")
        names = [[control.name for control in card.controls] for card in (stored, found)]
        if names[0] != names[1]:
            raise UserError(
                f"the model was trained with the controls {', '.join(names[0]) or 'none'}, the data has "
                f"{', '.join(names[1]) or 'none'}"
            )
        for control, other in zip(stored.controls, found.controls, strict=True):
            if control != other:
                raise UserError(
                    f"control {control.name}: the model was trained with {control.low:g} … {control.high:g} "
                    f"({control.scale}), the data has {other.low:g} … {other.high:g} ({other.scale}); set the same "
                    "range"
                )
        if found.class_names is not None and stored.class_names is not None:
            known, given = list(stored.class_names), list(found.class_names)
            if known != given:
                raise UserError(
                    f"the model tells {', '.join(known)} apart, the data has the classes {', '.join(given)}"
                )

    def fitting_options(self) -> dict[str, Any]:
        """Return fields of the model's configuration that follow from the data (or the data of the stored weights);
        those that it does not have are passed over."""
        assert self.card is not None
        card, features = self.card, self.card.features
        options: dict[str, Any] = {
            "sample_rate": round(card.model_rate),
            "in_channels": card.channels * (1 if features is None else features["mels"]),
        }
        if card.class_names is not None:
            options |= {"num_classes": len(card.class_names), "class_names": tuple(card.class_names)}
        if card.quantizer is not None:
            quantizer = Quantizer(**card.quantizer)
            options |= {"vocab_size": quantizer.levels, "law": quantizer.law, "range": quantizer.range}
        names = tuple(control.name for control in card.controls)
        return options | {"n_controls": len(names), "control_names": names or None}


def _class_names(data: Any, complete: bool) -> tuple[str, ...] | None:
    if not getattr(data, "needs_labels", False):
        return None
    try:
        return tuple(data.class_names)
    except UserError:
        if complete:
            raise
        return None  # there are only recordings to predict


def _controls(data: Any) -> tuple[Control, ...]:
    ranges = getattr(data, "ranges", None)
    if ranges is not None:
        from ..data.compression import CONTROLS, LOGARITHMIC

        return tuple(
            Control(
                name=name,
                low=getattr(ranges, name)[0],
                high=getattr(ranges, name)[1],
                scale="logarithmic" if name in LOGARITHMIC else "linear",
            )
            for name in CONTROLS
        )
    spans = getattr(data, "control_ranges", {})
    return tuple(
        Control(name=name, low=float(spans.get(name, (0, 1))[0]), high=float(spans.get(name, (0, 1))[1]))
        for name in getattr(data, "controls", ())
    )
