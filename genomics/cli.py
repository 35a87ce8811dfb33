"""``longscan genomics``: the commands of the DNA domain."""

from __future__ import annotations

from ..core.cli import Verb, run_verb

_COMMANDS = "longscan.genomics.commands"
VERBS = (
    Verb("fit", "pretrain or fine-tune a model", "longscan.genomics.training:fit"),
    Verb("validate", "measure a model on validation data", "longscan.genomics.training:validate"),
    Verb("test", "measure a model on test data", "longscan.genomics.training:test"),
    Verb(
        "predict", "classes and probabilities for a FASTA file or a table, as TSV", "longscan.genomics.training:predict"
    ),
    Verb("embed", "embeddings of records or BED intervals, as Parquet or NPZ", f"{_COMMANDS}.embed:embed"),
    Verb("score-variants", "effects of the variants of a VCF, as TSV or VCF", f"{_COMMANDS}.score_variants:main"),
    Verb("mutate", "effect of every substitution in a region, as TSV and a heat map", f"{_COMMANDS}.mutate:mutate"),
    Verb("generate", "new sequences, prompted or not, as FASTA", f"{_COMMANDS}.generate:generate"),
    Verb("check-rc", "how far a model is from treating both strands alike", f"{_COMMANDS}.check_rc:check_rc"),
    Verb("relatives", "an alignment of two genomes as targets for pretraining", f"{_COMMANDS}.relatives:relatives"),
    Verb("probe", "frozen embeddings and a linear or SVM classifier, cross-validated", f"{_COMMANDS}.probe:probe"),
)


def main(argv: list[str]) -> int:
    """Run a command of ``longscan genomics``."""
    return run_verb("longscan genomics", "DNA models: HyenaDNA, Caduceus, and hybrids by configuration.", VERBS, argv)
