"""Forecasting models behind one interface: see :mod:`longscan.timeseries.models.base`."""

from . import zoo  # noqa: F401  (registers the models that ship)
from .base import Forecaster, ForecasterConfig, ForecastInputs
from .classifier import SeriesClassifier, SeriesClassifierConfig
from .hiss import HiSS, HiSSConfig
from .imputer import SeriesImputer, SeriesImputerConfig
from .kernel_bank import KernelBankClassifier, KernelBankConfig
from .linear import LinearForecaster, LinearForecasterConfig
from .ls4 import LS4, LS4Config
from .prediction import BatchForecast, Prediction
from .s_mamba import SMamba, SMambaConfig
from .sequence import SequenceForecaster, SequenceForecasterConfig
from .sequence_models import MambaForecaster, MambaForecasterConfig, S4DForecaster, S4DForecasterConfig
from .streaming import ForecastStream
from .xlstm_time import XLSTMTime, XLSTMTimeConfig
from .zero_shot import ZeroShotForecaster, ZeroShotForecasterConfig

__all__ = [
    "LS4",
    "BatchForecast",
    "ForecastInputs",
    "ForecastStream",
    "Forecaster",
    "ForecasterConfig",
    "HiSS",
    "HiSSConfig",
    "KernelBankClassifier",
    "KernelBankConfig",
    "LS4Config",
    "LinearForecaster",
    "LinearForecasterConfig",
    "MambaForecaster",
    "MambaForecasterConfig",
    "Prediction",
    "S4DForecaster",
    "S4DForecasterConfig",
    "SMamba",
    "SMambaConfig",
    "SequenceForecaster",
    "SequenceForecasterConfig",
    "SeriesClassifier",
    "SeriesClassifierConfig",
    "SeriesImputer",
    "SeriesImputerConfig",
    "XLSTMTime",
    "XLSTMTimeConfig",
    "ZeroShotForecaster",
    "ZeroShotForecasterConfig",
]
