"""Cards of what models were trained on: files, checkpoints, and what is no card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from longscan.core.data_card import DataCard
from longscan.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ToyCard(DataCard):
    domain: ClassVar[str] = "toy"
    required: ClassVar[tuple[str, ...]] = ("rate",)

    rate: int
    names: tuple[str, ...] = ()

    @classmethod
    def parsed(cls, values):  # type: ignore[no-untyped-def]
        return {**values, "names": tuple(values.get("names", ()))}


def test_round_trips(tmp_path: Path) -> None:
    card = ToyCard(rate=8, names=("a", "b"))
    assert card.to_dict() == {"rate": 8, "names": ["a", "b"]}
    assert ToyCard.read(tmp_path) is None
    assert card.write(tmp_path) == tmp_path / "toy.json"
    assert ToyCard.read(tmp_path) == card
    torch.save({"longscan": {"model": {"toy": card.to_dict()}}}, tmp_path / "one.ckpt")
    torch.save({"longscan": {"model": {}}}, tmp_path / "none.ckpt")
    assert ToyCard.read(tmp_path / "one.ckpt") == card
    assert ToyCard.read(tmp_path / "none.ckpt") is None
    assert ToyCard.read(tmp_path / "weights.safetensors") is None


def test_what_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"toy.json: has no rate; add it"):
        ToyCard.from_dict({"names": []})
    (tmp_path / "toy.json").write_text('{"rate": 1, "rat": 2}')
    with pytest.raises(UserError, match=rf"{tmp_path}/toy.json: unknown entry 'rat' .*of another version"):
        ToyCard.read(tmp_path)
