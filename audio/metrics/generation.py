"""Quality of generated sets, from what a classifier makes of real and of generated clips.

They are those of DiffWave (Kong et al. 2021, arXiv:2009.09761) and SaShiMi (Goel et al. 2022, arXiv:2202.09729).
Features are of a classifier's last hidden layer, (clips, features); probabilities are its output, (clips, classes),
rows of which sum to one. All is computed in float64.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...core.errors import UserError


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the Fréchet distance of the two Gaussians with the features' means and covariances ("FID"), 0 best.

    ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½); the trace of the root comes from the symmetric Σ₁^½ Σ₂ Σ₁^½, which has the
    same eigenvalues, none of which is negative.

    Args:
        real: features, (clips, features).
        generated: likewise.

    Raises:
        UserError: fewer than two clips, or another number of features.
    """
    real, generated = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    if len(real) < 2 or len(generated) < 2 or real.shape[1:] != generated.shape[1:]:
        raise UserError(f"a Fréchet distance needs two sets of two clips or more; got {real.shape}, {generated.shape}")
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, generated))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(product, 0)).sum()
    return float(np.square(real.mean(0) - generated.mean(0)).sum() + np.trace(first + second) - 2 * cross)


def inception_score(probabilities: np.ndarray, *, variant: Literal["all", "halves", "published"] = "all") -> float:
    """Return the inception score: exp of the mean divergence of each clip's classes from those of all clips.

    Between 1 (worst) and the number of classes (best) by the textbook.

    Args:
        probabilities: of generated clips.
        variant: ``"all"`` is the textbook's. ``"halves"`` compares the first half of the clips, in an order shuffled
            with seed 0, with the mean of the other half. ``"published"`` is what the published code computes on the
            same halves, with the sums over clips and classes interchanged: its numbers are those of the papers, and can
            exceed the number of classes.

    Raises:
        UserError: too few clips, or rows that are no probabilities.
    """
    p = _checked(probabilities, 1 if variant == "all" else 2)
    if variant == "all":
        return float(np.exp(_divergence(p, p.mean(0)).mean()))
    shuffled = p[np.random.RandomState(0).permutation(len(p))]
    half = len(p) // 2
    first, mean = shuffled[:half], shuffled[half:].mean(0)
    if variant == "halves":
        return float(np.exp(_divergence(first, mean).mean()))
    by_class = first / first.sum(0)
    return float(np.exp(_divergence(by_class.T, np.full_like(by_class.T, 1 / half)).mean()))


def modified_inception_score(probabilities: np.ndarray, pairs: int | None = None) -> float:
    """Return exp of the mean divergence between the classes of two clips (Gurumurthy et al. 2017, arXiv:1706.02071).

    It rewards variety within classes too.

    Args:
        probabilities: of generated clips.
        pairs: number of random pairs, drawn with seed 0 (10,000 are published); all pairs, exactly, where None.

    Raises:
        UserError: no clip, or rows that are no probabilities.
    """
    p = _checked(probabilities, 1)
    if pairs is None:
        # The mean over all pairs of Σ p log p - p log q, without forming the pairs.
        negative_entropy = _xlogy(p, p).sum(1).mean()
        mean = p.mean(0)
        cross = _xlogy(np.broadcast_to(mean, p.shape), p).sum(1).mean()
        return float(np.exp(negative_entropy - cross))
    chosen = np.random.RandomState(0).randint(0, len(p), (pairs, 2))
    return float(np.exp(_divergence(p[chosen[:, 0]], p[chosen[:, 1]]).mean()))


def am_score(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the activation-maximisation score (Zhou et al. 2018, arXiv:1703.02000): divergence of the mean classes of
    real from those of generated clips plus the mean entropy of generated ones, in nats; 0 best.

    Raises:
        UserError: no clip, or rows that are no probabilities.
    """
    p, q = _checked(real, 1), _checked(generated, 1)
    return float(_divergence(p.mean(0), q.mean(0)) - _xlogy(q, q).sum(1).mean())


def different_bins(
    real: np.ndarray, generated: np.ndarray, *, bins: int = 50, significance: float = 0.05, seed: int = 0
) -> float:
    """Return the share of statistically different bins ("NDB/K", Richardson and Weiss 2018, arXiv:1805.12462), 0 best.

    Real features are put into bins by k-means; a bin is different where the shares of real and of generated clips in it
    differ in a two-proportion z-test.

    Args:
        real: features, (clips, features).
        generated: likewise.
        bins: number of bins.
        significance: of the test.
        seed: of the clustering.

    Raises:
        UserError: fewer real clips than bins, or scikit-learn is missing.
    """
    try:
        from scipy.stats import norm
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise UserError("different_bins needs scikit-learn; pip install scikit-learn") from error
    if len(real) < bins:
        raise UserError(f"{len(real)} real clips cannot be put into {bins} bins; give more clips, or fewer bins")
    means = KMeans(bins, n_init=1, random_state=seed).fit(np.asarray(real, dtype=np.float64))
    counts = [np.bincount(means.predict(np.asarray(x, dtype=np.float64)), minlength=bins) for x in (real, generated)]
    first, second = counts[0] / len(real), counts[1] / len(generated)
    pooled = (counts[0] + counts[1]) / (len(real) + len(generated))
    spread = np.sqrt(pooled * (1 - pooled) * (1 / len(real) + 1 / len(generated)))
    z = np.abs(first - second) / np.where(spread > 0, spread, 1)
    return float((2 * norm.sf(z) < significance).mean())


def _checked(probabilities: np.ndarray, least: int) -> np.ndarray:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or len(p) < least:
        raise UserError(f"probabilities must be (clips, classes) of at least {least} clip(s); got shape {p.shape}")
    if not np.isfinite(p).all() or (p < 0).any() or np.abs(p.sum(1) - 1).max() > 1e-3:
        raise UserError("probabilities must not be negative and sum to 1 over classes; pass the softmax of the logits")
    return p


def _xlogy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x log y, 0 where x is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, x * np.log(y), 0.0)


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the Kullback-Leibler divergence of ``p`` from ``q`` along the last dimension, in nats."""
    return (_xlogy(p, p) - _xlogy(p, np.broadcast_to(q, p.shape))).sum(-1)
