"""Models trained here, whose weights ship in the package; docs/zoo.md has their results."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...core.checkpoint_files import read_json
from ...core.registry import ModelEntry, register_model
from .caduceus import CaduceusConfig

_FOLDER = Path(__file__).parent.parent / "zoo"


def _stored_config(folder: Path) -> CaduceusConfig:
    return CaduceusConfig(**read_json(folder / "config.json")["config"])


for _name, _description in (
    ("arabidopsis_caduceus", "masked language model of Arabidopsis chromosome 1, windows of 1,024 bases"),
    ("splice_caduceus", "splice sites in plants: decoy, donor, acceptor in the middle of 200 bases"),
    ("coding_caduceus", "coding or intergenic, 200 bases of either strand of plant DNA"),
):
    register_model(
        ModelEntry(
            name=_name,
            domain="genomics",
            config=partial(_stored_config, _FOLDER / _name),
            architecture="Caduceus",
            folder=_FOLDER / _name,
            description=_description,
        )
    )
