"""``longscan genomics``: the commands of the DNA domain."""

from __future__ import annotations

from ..core.cli import Verb, run_verb

VERBS = (
    Verb("fit", "pretrain or fine-tune a model", "longscan.genomics.training:fit"),
    Verb("validate", "measure a model on validation data", "longscan.genomics.training:validate"),
    Verb("test", "measure a model on test data", "longscan.genomics.training:test"),
    Verb(
        "predict", "classes and probabilities for a FASTA file or a table, as TSV", "longscan.genomics.training:predict"
    ),
)


def main(argv: list[str]) -> int:
    """Run a command of ``longscan genomics``."""
    return run_verb("longscan genomics", "DNA models: HyenaDNA, Caduceus, and hybrids by configuration.", VERBS, argv)
