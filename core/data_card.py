"""What a model was trained on, kept with its weights so that no verb has to be told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from .checkpoint_files import load_torch_file, read_json
from .errors import UserError, nearest
from .files import replacing


class DataCard:
    """Base of the cards of all domains, which are frozen dataclasses.

    A card lies beside the weights as ``<domain>.json``, and in training checkpoints as the entry ``<domain>`` of the
    model's description.
    """

    #: Names the file and the entry.
    domain: ClassVar[str]
    #: Entries without which it says nothing.
    required: ClassVar[tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str | None = None) -> Self:
        """Return the card that :meth:`to_dict` described.

        Raises:
            UserError: an entry that there is not, or a missing one; names ``where``, the file.
        """
        where = where or f"{cls.domain}.json"
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in values:
            if name not in known:
                raise UserError(f"{where}: unknown entry {name!r} ({nearest(name, known)}); is it of another version?")
        for name in cls.required:
            if name not in values:
                raise UserError(f"{where}: has no {name}; add it")
        return cls(**cls.parsed(values))

    @classmethod
    def parsed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the constructor for plain values."""
        return dict(values)

    @classmethod
    def read(cls, place: Path) -> Self | None:
        """Return the card of a model's folder or training checkpoint; None where it has none.

        Raises:
            UserError: a file that is no card.
        """
        if place.is_dir():
            path = place / f"{cls.domain}.json"
            return cls.from_dict(read_json(path), str(path)) if path.is_file() else None
        if place.suffix != ".ckpt":
            return None
        stored = load_torch_file(place).get("longscan", {}).get("model", {}).get(cls.domain)
        return None if stored is None else cls.from_dict(stored, str(place))

    def write(self, folder: Path) -> Path:
        """Write the card beside the weights of a model, and return its path."""
        target = folder / f"{self.domain}.json"
        with replacing(target) as path:
            path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return target
