"""DNA data: FASTA and BED for language modelling; tables, benchmarks and intervals for supervised learning.

The data modules need lightning, which takes seconds to import, so each is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmarks import (
        GenomicBenchmarksDataModule,
        GUEDataModule,
        IntervalDataModule,
        NucleotideTransformerDataModule,
    )
    from .classification import SequenceTableDataModule
    from .fasta import open_fasta
    from .pretraining import FastaDataModule

_MODULES = {
    "FastaDataModule": "pretraining",
    "GUEDataModule": "benchmarks",
    "GenomicBenchmarksDataModule": "benchmarks",
    "IntervalDataModule": "benchmarks",
    "NucleotideTransformerDataModule": "benchmarks",
    "SequenceTableDataModule": "classification",
    "open_fasta": "fasta",
}

__all__ = [
    "FastaDataModule",
    "GUEDataModule",
    "GenomicBenchmarksDataModule",
    "IntervalDataModule",
    "NucleotideTransformerDataModule",
    "SequenceTableDataModule",
    "open_fasta",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
