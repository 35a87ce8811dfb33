"""Baselines to hold a model against: k-mer logistic regression and Markov chains."""

from __future__ import annotations

import numpy as np


def kmer_frequencies(sequences: list[np.ndarray], k_max: int = 4) -> np.ndarray:
    """Return the frequencies of all k-mers, k = 1 … k_max, side by side: (sequences, 4 + 16 + …), float32.

    Args:
        sequences: for each, the bases as 0 … 3 (A, C, G, T), other symbols as negative numbers; k-mers with one of
            those are left out.
        k_max: longest k-mer.
    """
    features = np.zeros((len(sequences), sum(4**k for k in range(1, k_max + 1))), dtype=np.float32)
    for row, bases in enumerate(sequences):
        bases = np.asarray(bases, dtype=np.int64)
        code, valid, start = np.zeros_like(bases), np.ones(len(bases), dtype=bool), 0
        for k in range(1, k_max + 1):
            # code[i] becomes the number of the k-mer that starts at i.
            width = len(bases) - k + 1
            if width < 1:
                break
            code = 4 * code[:width] + bases[k - 1 :]
            valid = valid[:width] & (bases[k - 1 :] >= 0)
            counts = np.bincount(code[valid], minlength=4**k)
            features[row, start : start + 4**k] = counts / max(1, int(valid.sum()))
            start += 4**k
    return features


def kmer_logistic_regression(
    train: list[np.ndarray],
    train_labels: np.ndarray,
    val: list[np.ndarray],
    val_labels: np.ndarray,
    test: list[np.ndarray],
    *,
    k_max: int = 4,
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0),
) -> np.ndarray:
    """Fit a logistic regression on k-mer frequencies and return its predicted classes for ``test``.

    Features are standardised; the inverse regularisation strength is chosen by accuracy on ``val``. Sequences are as
    for :func:`kmer_frequencies`, labels are class numbers.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train_features := kmer_frequencies(train, k_max))
    train_features, val_features = scaler.transform(train_features), scaler.transform(kmer_frequencies(val, k_max))
    models = [LogisticRegression(C=c, max_iter=200).fit(train_features, train_labels) for c in strengths]
    best = max(models, key=lambda model: model.score(val_features, val_labels))
    return best.predict(scaler.transform(kmer_frequencies(test, k_max)))


def markov_perplexity(train: list[np.ndarray], test: list[np.ndarray], order: int) -> float:
    """Return the perplexity per base on ``test`` of a Markov chain of this order, add-one smoothed, fit on ``train``.

    Sequences are as for :func:`kmer_frequencies`.
    """

    def count(sequences: list[np.ndarray]) -> np.ndarray:
        total = np.zeros(4 ** (order + 1), dtype=np.int64)
        for bases in sequences:
            bases = np.asarray(bases, dtype=np.int64)
            width = len(bases) - order
            if width < 1:
                continue
            code, valid = np.zeros(width, dtype=np.int64), np.ones(width, dtype=bool)
            for offset in range(order + 1):
                part = bases[offset : offset + width]
                code, valid = 4 * code + part, valid & (part >= 0)
            total += np.bincount(code[valid], minlength=4 ** (order + 1))
        return total.reshape(-1, 4)

    fitted = count(train) + 1.0
    log_probability = np.log(fitted / fitted.sum(1, keepdims=True))
    seen = count(test)
    return float(np.exp(-(seen * log_probability).sum() / seen.sum()))
