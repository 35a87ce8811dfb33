"""Callbacks of the training verbs: checkpoints that resume exactly, interruption, measurements, pictures, results."""

from __future__ import annotations

from .checkpoint import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from .compilation import CompileModel
from .export import ExportModel
from .interrupt import GracefulInterrupt
from .length_warmup import SequenceLengthWarmup, Stage
from .pictures import ConfusionPicture, LearningCurves
from .predictions import PredictionTable
from .progress import TrainingProgress
from .random_state import RandomState
from .results import ResultTable
from .throughput import Throughput

__all__ = [
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "CompileModel",
    "ConfusionPicture",
    "ExportModel",
    "GracefulInterrupt",
    "LastCheckpoint",
    "LearningCurves",
    "PredictionTable",
    "RandomState",
    "ResultTable",
    "SequenceLengthWarmup",
    "Stage",
    "Throughput",
    "TrainingProgress",
]
