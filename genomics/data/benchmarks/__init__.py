"""The field's benchmarks as they are distributed, and intervals with targets: one reader for each format."""

from .genomic_benchmarks import GenomicBenchmarksDataModule
from .gue import GUEDataModule
from .intervals import IntervalDataModule
from .nucleotide_transformer import NucleotideTransformerDataModule

__all__ = [
    "GUEDataModule",
    "GenomicBenchmarksDataModule",
    "IntervalDataModule",
    "NucleotideTransformerDataModule",
]
