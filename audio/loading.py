"""An audio model ready to be asked: on its device, with the card of what it was trained on."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

import torch

from ..core.device import find_device
from ..core.errors import UserError
from ..core.model_place import fetched_place
from .card import AudioCard, Control
from .data.files import AudioFormat
from .generation import is_causal
from .quantization import Quantizer


@dataclass(frozen=True)
class AudioModel:
    """A model and its card.

    Args:
        model: in evaluation mode, on ``device``.
        card: what it was trained on.
        name: as it was asked for.
        device: where it computes.
    """

    model: Any
    card: AudioCard
    name: str
    device: torch.device

    @property
    def quantizer(self) -> Quantizer:
        """How samples become the codes that it models.

        Raises:
            UserError: nothing says so.
        """
        if self.card.quantizer is None:
            raise UserError(
                f"{self.name}: nothing says how samples become its codes; choose a model of codes as --model"
            )
        return Quantizer(**self.card.quantizer)

    def file_format(self, arguments: argparse.Namespace, *, resample: bool = True) -> AudioFormat:
        """Return what files must be for it, and what the options allow to convert."""
        return AudioFormat(
            self.card.sample_rate,
            self.card.channels,
            resample and arguments.resample,
            arguments.mixdown,
            flags="--",
        )

    def needs(self, *methods: str, what: str) -> None:
        """Check that the model can be asked for something.

        Raises:
            UserError: it lacks one of ``methods``; ``what`` says which kind of model is wanted.
        """
        for method in methods:
            if not callable(getattr(self.model, method, None)):
                raise UserError(f"{self.name}: {type(self.model).__name__} is not {what}; choose another --model")

    def check_generative(self, *methods: str) -> None:
        """Check that the model predicts codes one after the other, and has ``methods``.

        Raises:
            UserError: it does not.
        """
        self.needs(*methods, what="a generative model")
        if not is_causal(self.model):
            raise UserError(f"{self.name}: looks in both directions, not ahead alone; choose a causal --model")


def load_model(arguments: argparse.Namespace) -> AudioModel:
    """Load the model that the options of `commands.options.add_model_arguments` name.

    Raises:
        UserError: an unknown model, a device that is not there, or weights without a card where ``--sample-rate`` is
            not given.
    """
    import longscan

    if arguments.threads is not None:
        if arguments.threads < 1:
            raise UserError(f"--threads {arguments.threads}: must be at least 1")
        torch.set_num_threads(arguments.threads)
    device = find_device(arguments.device)
    model: Any = longscan.from_pretrained(arguments.model, revision=arguments.revision)
    card = AudioCard.read(fetched_place(arguments.model, arguments.revision))
    if card is None:
        card = card_of(model, arguments.sample_rate)
        if card is None:
            raise UserError(
                f"{arguments.model}: has no audio.json that tells its sample rate; give --sample-rate (in hertz)"
            )
    elif arguments.sample_rate is not None and arguments.sample_rate != card.sample_rate:
        raise UserError(
            f"--sample-rate {arguments.sample_rate}: {arguments.model} was trained at {card.sample_rate} Hz; leave "
            "--sample-rate away"
        )
    return AudioModel(model.eval().to(device), card, arguments.model, device)


def card_of(model: Any, sample_rate: int | None = None) -> AudioCard | None:
    """Return what the model's own configuration says of its data; None where nobody tells the sample rate.
    Controls without names are ``control_1`` and so on, between 0 and 1."""
    config = getattr(model, "config", None)
    rate = getattr(config, "sample_rate", None) if sample_rate is None else sample_rate
    if rate is None:
        return None
    controls = getattr(config, "control_names", None)
    if controls is None:
        controls = [f"control_{number}" for number in range(1, getattr(config, "n_controls", 0) + 1)]
    quantizer = getattr(model, "quantizer", None) if getattr(config, "vocab_size", None) else None
    return AudioCard(
        sample_rate=rate,
        quantizer=None if quantizer is None else dataclasses.asdict(quantizer),
        class_names=getattr(config, "class_names", None),
        channels=getattr(config, "in_channels", 1),
        controls=tuple(Control(name=name) for name in controls),
    )


def note(text: str) -> None:
    """Tell the user something on standard error."""
    print(f"longscan: note: {text}", file=sys.stderr)
