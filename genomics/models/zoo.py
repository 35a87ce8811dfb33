"""Models trained here, whose weights ship in the package; docs/zoo.md has their results."""

from __future__ import annotations

from pathlib import Path

from ...core.registry import register_shipped

for _name, _architecture, _description in (
    ("arabidopsis_caduceus", "Caduceus", "masked language model of Arabidopsis chromosome 1, windows of 1,024 bases"),
    (
        "arabidopsis_relatives_caduceus",
        "Caduceus",
        "masked language model that also knows what evolution changes: Arabidopsis thaliana and lyrata, aligned",
    ),
    ("splice_caduceus", "Caduceus", "splice sites in plants: decoy, donor, acceptor in the middle of 200 bases"),
    ("coding_caduceus", "Caduceus", "coding or intergenic, 200 bases of either strand of plant DNA"),
    ("coding_mamba_s4d", "LanguageModel", "coding or intergenic, 200 bases; knows the remains of genes from genes"),
):
    register_shipped(_name, "genomics", _architecture, Path(__file__).parent.parent / "zoo", _description)
