"""Metrics: published values of generated sets, errors of waveforms and spectra by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from longscan.audio.metrics.generation import (
    am_score,
    different_bins,
    frechet_distance,
    inception_score,
    modified_inception_score,
)
from longscan.audio.metrics.spectral import MultiResolutionSTFT
from longscan.audio.metrics.waveform import (
    EffectMetrics,
    bits_per_sample,
    error_to_signal_ratio,
    mean_absolute_error,
    pre_emphasized,
)
from longscan.core.errors import UserError


def test_generation_metrics_are_the_published_ones(golden: Path) -> None:
    folder = golden / "audio" / "gen_metrics_a"
    given = np.load(folder / "inputs.npz")
    wanted = {name: float(value[0]) for name, value in np.load(folder / "outputs.npz").items()}
    generated, real = given["probs_gen"], given["probs_data"]
    found = {
        "fid_upstream": frechet_distance(given["feat_data"], given["feat_gen"]),
        "fid_own": frechet_distance(given["feat_gen"], given["feat_data"]),
        "is_upstream": inception_score(generated, variant="published"),
        "is_axis1_halves": inception_score(generated, variant="halves"),
        "is_textbook_all": inception_score(generated),
        "mis_upstream_n10000": modified_inception_score(generated, 10_000),
        "mis_exact_all_pairs": modified_inception_score(generated),
        "am_upstream": am_score(real, generated),
    }
    assert found == pytest.approx(wanted, rel=1e-6)


def test_generation_metrics_of_known_sets() -> None:
    one_hot = np.eye(10)[np.arange(1000) % 10]
    assert inception_score(one_hot) == pytest.approx(10)
    assert modified_inception_score(np.full((8, 4), 0.25)) == pytest.approx(1)
    assert am_score(one_hot, one_hot) == pytest.approx(0)
    features = np.random.default_rng(0).standard_normal((500, 3))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    # Two clouds of the same shape, 3 apart.
    assert frechet_distance(features, features + np.array([3, 0, 0])) == pytest.approx(9)
    # One half as wide: Σ (σ - σ/2)².
    assert frechet_distance(features, features / 2 + features.mean(0) / 2) == pytest.approx(
        np.cov(features.T).trace() / 4
    )
    assert different_bins(features, features[::-1], bins=10) == 0
    assert different_bins(features, np.zeros((500, 3)), bins=10) == 1


def test_generation_metrics_refuse_logits() -> None:
    with pytest.raises(UserError, match="pass the softmax"):
        inception_score(np.array([[3.0, -1.0]]))
    with pytest.raises(UserError, match="at least 2 clip"):
        inception_score(np.array([[1.0, 0.0]]), variant="halves")
    with pytest.raises(UserError, match="two sets of two clips"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(UserError, match="5 real clips cannot be put into 50 bins"):
        different_bins(np.zeros((5, 3)), np.zeros((5, 3)))


def test_bits_per_sample() -> None:
    logits, labels = torch.zeros(2, 5, 256), torch.randint(256, (2, 5))
    assert bits_per_sample(logits, labels).item() == pytest.approx(8, abs=1e-5)
    labels[0, 2:] = -100
    logits[0, 0, labels[0, 0]] = math.log(255)  # a probability of one half
    assert bits_per_sample(logits, labels).item() == pytest.approx((6 * 8 + 1) / 7, abs=1e-5)
    assert bits_per_sample(logits, torch.full((2, 5), -100)).item() == 0


def test_errors_of_waveforms_by_hand() -> None:
    target = torch.tensor([[1.0, -1.0, 2.0, 9.0], [0.0, 2.0, 0.0, 0.0]])[..., None]
    output = target + torch.tensor([[0.5, 0.0, -0.5, 7.0], [0.0, 1.0, 0.0, 0.0]])[..., None]
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    assert error_to_signal_ratio(output, target, mask).item() == pytest.approx(1.5 / 10)
    assert mean_absolute_error(output, target, mask).item() == pytest.approx(2 / 7)
    assert error_to_signal_ratio(output, target).item() == pytest.approx(50.5 / 91)
    # Pre-emphasis 0.5 of the errors (.5, 0, -.5, 0) and (0, 1, 0, 0): .25 + .0625 + .25 + .0625 and 1 + .25.
    signal = pre_emphasized(torch.where(mask[..., None], target, 0.0), 0.5)
    np.testing.assert_allclose(signal[0, :, 0], [1, -1.5, 2.5, -1])
    ratio = error_to_signal_ratio(output, target, mask, pre_emphasis=0.5).item()
    assert ratio == pytest.approx(1.875 / (signal**2).sum().item())


def test_effect_metrics_of_a_set_do_not_depend_on_its_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(6, 700, 1, generator=generator)
    output = target + 0.1 * torch.randn(6, 700, 1, generator=generator) + 0.05
    mask = torch.arange(700) < torch.tensor([700, 300, 650, 700, 10, 1])[:, None]
    whole = EffectMetrics("val")
    whole.update(output, target, mask)
    parts = EffectMetrics("val")
    for rows in ([0, 4], [1, 2, 3], [5]):
        parts.update(output[rows], target[rows], mask[rows])
    found, again = whole.compute(), parts.compute()
    assert {name: value.item() for name, value in again.items()} == pytest.approx(
        {name: value.item() for name, value in found.items()}, rel=1e-5
    )
    assert found["esr"].item() == pytest.approx(error_to_signal_ratio(output, target, mask).item(), rel=1e-5)
    emphasized = error_to_signal_ratio(output, target, mask, 0.85).item()
    assert found["esr_pre_emphasis"].item() == pytest.approx(emphasized, rel=1e-5)
    assert found["mae"].item() == pytest.approx(mean_absolute_error(output, target, mask).item(), rel=1e-5)
    kept = (output - target).squeeze(-1).double() * mask
    energy = (target.squeeze(-1).double() * mask).square().sum()
    dc = ((kept.sum(1) / mask.sum(1)) ** 2 * mask.sum(1)).sum() / energy
    assert found["dc"].item() == pytest.approx(dc.item(), rel=1e-5)
    assert 0.1 < found["stft"].item() < 2
    # Samples that only even out several processes are masked away.
    parts.update(output, target, torch.zeros_like(mask))
    assert parts.compute()["mae"].item() == pytest.approx(found["mae"].item(), rel=1e-6)


def test_effect_metrics_without_signal() -> None:
    metrics = EffectMetrics("test")
    with pytest.warns(UserWarning, match="before the"), pytest.raises(UserError, match="the test set has no sample"):
        metrics.compute()
    metrics.update(torch.ones(1, 8, 1), torch.zeros(1, 8, 1))
    with pytest.raises(UserError, match="targets of the test set are silent"):
        metrics.compute()


def test_spectral_distance_by_hand() -> None:
    """One window over a whole clip, and the definition with numpy."""
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 1, 16, 1)).astype(np.float32)
    loss = MultiResolutionSTFT([(16, 16, 16)])
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 16)

    def magnitude(signal: np.ndarray) -> np.ndarray:
        padded = np.pad(signal[0, :, 0], 8)
        frames = np.stack([padded[:16] * taper, padded[16:] * taper])
        return np.maximum(np.abs(np.fft.rfft(frames, axis=1)), 1e-4)

    a, b = magnitude(x), magnitude(y)
    wanted = np.linalg.norm(b - a) / np.linalg.norm(b) + np.abs(np.log(b) - np.log(a)).mean()
    assert loss(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(wanted, rel=1e-5)


def test_spectral_distance_of_a_gain_and_its_gradient() -> None:
    target = torch.randn(2, 5000, 2)
    loss = MultiResolutionSTFT()
    assert loss(target, target).item() == 0
    # Half as loud: ‖S - S/2‖/‖S‖ = 1/2, and log 2 at every place.
    assert loss(target / 2, target).item() == pytest.approx(0.5 + math.log(2), rel=1e-4)
    for length in (1, 37, 5000):
        output = torch.zeros(1, length, 1, requires_grad=True)
        value = loss(output, torch.randn(1, length, 1))
        value.backward()
        assert torch.isfinite(value)
        assert output.grad is not None
        assert torch.isfinite(output.grad).all()
    output = torch.randn(1, 3000, 1, dtype=torch.float64).float().requires_grad_()
    loss(output, torch.randn(1, 3000, 1)).backward()
    assert output.grad is not None
    assert output.grad.abs().sum() > 0
    with pytest.raises(UserError, match="hop ≤ window"):
        MultiResolutionSTFT([(16, 4, 32)])
