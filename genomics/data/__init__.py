"""DNA data: FASTA and BED for language modelling; tables, benchmarks and intervals for supervised learning."""

from .benchmarks import (
    GenomicBenchmarksDataModule,
    GUEDataModule,
    IntervalDataModule,
    NucleotideTransformerDataModule,
)
from .classification import SequenceTableDataModule
from .fasta import open_fasta
from .pretraining import FastaDataModule

__all__ = [
    "FastaDataModule",
    "GUEDataModule",
    "GenomicBenchmarksDataModule",
    "IntervalDataModule",
    "NucleotideTransformerDataModule",
    "SequenceTableDataModule",
    "open_fasta",
]
