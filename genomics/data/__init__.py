"""DNA data: FASTA and BED for language modelling, tables of labelled sequences for classification."""

from .classification import SequenceTableDataModule
from .fasta import open_fasta
from .pretraining import FastaDataModule

__all__ = ["FastaDataModule", "SequenceTableDataModule", "open_fasta"]
