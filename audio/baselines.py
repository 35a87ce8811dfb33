"""Baselines to hold a model against: cepstra and logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import UserError
from .data.files import AudioFormat
from .data.manifest import Recordings
from .resampling import check_torchaudio


def cepstral_features(
    clips: list[np.ndarray], sample_rate: int, *, coefficients: int = 13, frames: int = 10
) -> np.ndarray:
    """Return the MFCC of clips, brought to a common number of frames, and the standard deviation of each coefficient
    over the clip: float32 (clips, coefficients · (frames + 1)).

    Windows of 25 ms every 10 ms, 26 mel bands, natural logarithm, orthonormal discrete cosine transform; frames are
    interpolated linearly. Levels are kept: they are in the first coefficient.

    Args:
        clips: samples of each, float32 (frames,) of any length.
        sample_rate: in hertz.
        coefficients: of the cepstrum.
        frames: that each clip is brought to.

    Raises:
        UserError: torchaudio is missing.
    """
    check_torchaudio()
    import torch
    from torchaudio.transforms import MFCC

    window = round(0.025 * sample_rate)
    size = 1 << (window - 1).bit_length()
    spectrum = {"n_fft": size, "win_length": window, "hop_length": round(0.01 * sample_rate), "n_mels": 26}
    transform = MFCC(sample_rate, n_mfcc=coefficients, log_mels=True, melkwargs=spectrum)
    features = np.empty((len(clips), coefficients * (frames + 1)), dtype=np.float32)
    for row, clip in enumerate(clips):
        # The transform reflects half a window at the ends.
        samples = np.pad(np.asarray(clip, dtype=np.float32), (0, max(0, size - len(clip))))
        found = transform(torch.from_numpy(samples))
        common = torch.nn.functional.interpolate(found[None], frames, mode="linear", align_corners=True)[0]
        features[row] = torch.cat([common.flatten(), found.std(-1, correction=0)]).numpy()
    return features


def cepstral_regression(
    train: list[np.ndarray],
    train_labels: np.ndarray,
    test: list[np.ndarray],
    *,
    sample_rate: int,
    strength: float = 0.1,
) -> np.ndarray:
    """Fit a logistic regression on standardised :func:`cepstral_features` and return its classes for ``test``.

    Args:
        train: clips, float32 (frames,) of any length.
        train_labels: class of each, (clips,).
        test: clips.
        sample_rate: in hertz.
        strength: inverse strength of the regularisation.

    Raises:
        UserError: scikit-learn or torchaudio is missing.
    """
    return fit_and_predict(
        cepstral_features(train, sample_rate), train_labels, cepstral_features(test, sample_rate), strength=strength
    )


def fit_and_predict(train: np.ndarray, labels: np.ndarray, test: np.ndarray, *, strength: float = 0.1) -> np.ndarray:
    """Return the classes that a logistic regression on standardised features gives the rows of ``test``.

    Raises:
        UserError: scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise UserError("the baseline needs scikit-learn; pip install scikit-learn") from error
    scaler = StandardScaler().fit(train)
    model: Any = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(train), labels)
    return model.predict(scaler.transform(test))


def read_clips(recordings: Recordings, wanted: AudioFormat) -> list[np.ndarray]:
    """Return the samples of recordings of one channel, float32 (frames,) each.

    Raises:
        UserError: something is wrong with one of them.
    """
    return [recordings.read(index, wanted)[0][:, 0] for index in range(len(recordings))]
