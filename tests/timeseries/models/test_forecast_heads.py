"""Heads against torch.distributions and scipy, and the scaling around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from longscan.core.errors import UserError
from longscan.timeseries.metrics.probabilistic import crps_from_samples, pinball
from longscan.timeseries.models.heads import DECILES, ForecastHead, create_head
from longscan.timeseries.models.prediction import Prediction
from longscan.timeseries.models.scaling import Scale, Scaling

DISTRIBUTIONS = ("quantiles", "normal", "student_t", "negative_binomial", "samples")
SHAPE = (3, 7, 2)


def scale_of(location: float, scale: float, magnitude: float = 1.0) -> Scale:
    ones = torch.ones(SHAPE[0], 1, SHAPE[2], dtype=torch.float64)
    return Scale(location * ones, scale * ones, magnitude * ones)


def predicted(kind: str, scale: Scale, spread: float = 1.0, **options: object) -> Prediction:
    torch.manual_seed(0)
    head: ForecastHead = create_head(kind, **options)  # type: ignore[arg-type]
    raw = spread * torch.randn(*SHAPE, head.size)
    return Prediction(head, head.parameters_of(raw), scale, torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("spread", [0.1, 3.0, 100.0])
def test_quantiles_never_cross(kind: str, spread: float) -> None:
    prediction = predicted(kind, scale_of(1e6, 1e-2, 50.0), spread)
    levels = [0.999, *np.linspace(0.001, 0.99, 60), 0.5, 0.5000001]
    values = prediction.quantiles(levels)
    assert values.shape == (63, *SHAPE)
    assert values.isfinite().all()
    assert (values[torch.tensor(levels).argsort()].diff(dim=0) >= 0).all()


def test_a_raw_zero_is_a_standard_distribution() -> None:
    for kind in ("quantiles", "normal"):
        head = create_head(kind)
        prediction = Prediction(
            head, head.parameters_of(torch.zeros(*SHAPE, head.size)), scale_of(5.0, 2.0), torch.ones(1)
        )
        values = prediction.quantiles([0.05, 0.1, 0.25, 0.5, 0.9, 0.99])
        expected = stats.norm.ppf([0.05, 0.1, 0.25, 0.5, 0.9, 0.99], 5, 2)
        assert np.abs(values[:, 0, 0, 0].numpy() - expected).max() < 1e-3


def test_quantile_head_at_its_own_levels_and_its_loss() -> None:
    prediction = predicted("quantiles", scale_of(3.0, 2.0))
    values = prediction.quantiles(DECILES).numpy()
    own = 3 + 2 * prediction.parameters["quantiles"].movedim(-1, 0).double().numpy()
    assert np.abs(values - own).max() < 1e-6
    assert np.abs(prediction.point().numpy() - own[4]).max() < 1e-6
    target = torch.randn(SHAPE) * 4
    expected = 2 * pinball(target.numpy(), own, DECILES).mean(0)
    assert np.abs(prediction.losses(target).numpy() - expected).max() < 1e-5
    # In units of the window, or of the training rows.
    assert np.abs(prediction.losses(target, "window").numpy() - expected / 2).max() < 1e-5


def reference(kind: str, prediction: Prediction) -> tuple[torch.distributions.Distribution, object]:
    """The distribution in units of the data: torch's for likelihoods, scipy's for quantiles."""
    p = {name: value.double() for name, value in prediction.parameters.items()}
    location, scale, magnitude = prediction.scale
    if kind == "normal":
        mean, deviation = location + scale * p["mean"], scale * p["deviation"]
        return torch.distributions.Normal(mean, deviation), stats.norm(mean.numpy(), deviation.numpy())
    if kind == "student_t":
        mean, spread = location + scale * p["mean"], scale * p["spread"]
        ours = torch.distributions.StudentT(p["freedom"], mean, spread)
        return ours, stats.t(p["freedom"].numpy(), mean.numpy(), spread.numpy())
    mean, alpha = magnitude * p["mean"], p["alpha"]
    success = 1 / (1 + alpha * mean)
    found = torch.distributions.NegativeBinomial(1 / alpha, probs=1 - success)
    assert torch.allclose(found.variance, mean + alpha * mean**2)
    return found, stats.nbinom((1 / alpha).numpy(), success.numpy())


@pytest.mark.parametrize("kind", ["normal", "student_t", "negative_binomial"])
def test_likelihoods_and_quantiles(kind: str) -> None:
    prediction = predicted(kind, scale_of(3.0, 2.0, 40.0))
    density, inverse = reference(kind, prediction)
    target = (torch.rand(SHAPE) * 90).round() if kind == "negative_binomial" else torch.randn(SHAPE) * 5
    expected = -density.log_prob(target.double())
    assert (prediction.losses(target) - expected).abs().max() < 2e-4 * expected.abs().max()
    assert torch.allclose(prediction.point(), density.mean, atol=1e-5)
    levels = [0.01, 0.1, 0.5, 0.975]
    truth = np.stack([inverse.ppf(level) for level in levels])  # type: ignore[attr-defined]
    assert np.abs(prediction.quantiles(levels).numpy() - truth).max() < 1e-4 * np.abs(truth).max()


def test_samples_head_scores_the_fair_crps() -> None:
    prediction = predicted("samples", scale_of(3.0, 2.0), samples=6)
    drawn = 3 + 2 * prediction.parameters["samples"].movedim(-1, 0).double().numpy()
    target = torch.randn(SHAPE) * 4
    # The biased estimate divides by n² where the fair one has n (n - 1).
    near = np.abs(drawn - target.numpy()).mean(0)
    pairs = sum(np.abs(a - b) for a in drawn for b in drawn) / 2
    assert np.abs(prediction.losses(target).numpy() - (near - pairs / 30)).max() < 1e-5
    assert abs((near - pairs / 36).mean() - crps_from_samples(target.numpy(), drawn)) < 1e-6


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_draws_follow_the_quantiles(kind: str) -> None:
    prediction = predicted(kind, scale_of(3.0, 2.0, 30.0))
    draws = prediction.sample(4000, torch.Generator().manual_seed(1))
    assert draws.shape == (4000, *SHAPE)
    for level, found in zip((0.2, 0.5, 0.8), prediction.quantiles([0.2, 0.5, 0.8]), strict=True):
        share = (draws <= found).double().mean(0)
        slack = 0.12 if kind == "negative_binomial" else 0.04
        assert (share - level).min() > -0.04
        assert (share - level).max() < slack


@pytest.mark.parametrize("kind", ["point", *DISTRIBUTIONS])
@pytest.mark.parametrize("units", ["data", "window"])
def test_missing_targets_count_for_nothing(kind: str, units: str) -> None:
    head = create_head(kind)  # type: ignore[arg-type]
    raw = torch.randn(*SHAPE, head.size, requires_grad=True)
    prediction = Prediction(head, head.parameters_of(raw), scale_of(-20.0, 2.0), torch.ones(1))
    target = torch.randint(0, 9, SHAPE).float()
    known = torch.rand(SHAPE) < 0.6
    holed = torch.where(known, target, torch.nan)
    loss = prediction.loss(holed, units=units)  # type: ignore[arg-type]
    assert torch.allclose(loss, prediction.losses(target, units)[known].mean(), rtol=1e-5)  # type: ignore[arg-type]
    assert torch.equal(loss, prediction.loss(target + 1e9 * ~known, known, units))  # type: ignore[arg-type]
    (grad,) = torch.autograd.grad(loss, raw)
    assert grad.isfinite().all()
    assert (grad[~known] == 0).all()
    assert prediction.loss(holed, torch.zeros(SHAPE, dtype=torch.bool)) == 0


def test_point_losses() -> None:
    target = torch.randn(SHAPE)
    for name, torchs in (("mse", "mse_loss"), ("mae", "l1_loss"), ("huber", "huber_loss")):
        prediction = predicted("point", scale_of(1.0, 2.0), point_loss=name)
        expected = getattr(torch.nn.functional, torchs)(prediction.point().float(), target)
        assert torch.allclose(prediction.loss(target), expected, rtol=1e-5)


def test_mistakes_in_heads() -> None:
    for call, message in (
        (lambda: create_head("gaussian"), "head='gaussian' is unknown"),  # type: ignore[arg-type]
        (lambda: create_head("quantiles", [0.5]), r"quantile_levels \[0.5\] must be two or more"),
        (lambda: create_head("quantiles", [0.1, 0.1]), "rising"),
        (lambda: create_head("samples", samples=1), "two or more"),
        (lambda: create_head("point", point_loss="mape"), "point_loss='mape' is unknown"),
        (lambda: predicted("point", scale_of(0, 1)).quantiles([0.5]), "gives points alone"),
        (lambda: predicted("normal", scale_of(0, 1)).quantiles([1.0]), "between 0 and 1"),
        (lambda: predicted("negative_binomial", scale_of(0, 1)).loss(-torch.ones(SHAPE)), "for counts"),
        (lambda: Scaling("minmax"), "scaling='minmax' is unknown"),  # type: ignore[arg-type]
        (lambda: Scaling("standard", 2).fit(torch.zeros(5, 3)), r"shape \(5, 3\), expected \(rows, 2\)"),
        (lambda: Scaling("standard", 2).fit(torch.tensor([[1.0, torch.nan]])), "variate 1 has no observed"),
    ):
        with pytest.raises(UserError, match=message):
            call()


# ---- scaling -------------------------------------------------------------------------------------------------------


def window() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    values = torch.randn(4, 50, 3, dtype=torch.float64) * torch.tensor([1e-4, 1.0, 1e5]) + torch.tensor([5.0, 0.0, 1e7])
    observed = torch.rand(values.shape) < 0.7
    return values, observed


@pytest.mark.parametrize("kind", ["none", "standard", "instance", "robust"])
@pytest.mark.parametrize("affine", [False, True])
def test_scaling_there_and_back(kind: str, affine: bool) -> None:
    values, observed = window()
    scaling = Scaling(kind, 3, affine)  # type: ignore[arg-type]
    scaling.fit(values.flatten(0, 1), observed.flatten(0, 1))
    if affine:
        with torch.no_grad():
            scaling.weight.copy_(torch.tensor([0.5, -2.0, 1.5]))
            scaling.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
    scale = scaling.measure(values, observed)
    assert (scale.scale > 0).all()
    back = scale.location + scale.scale * scaling.apply(values, scale).double()
    assert ((back - values).abs() <= 1e-6 * scale.scale * 50).all() or kind == "none"


def test_what_the_scales_are() -> None:
    values, observed = window()
    holed = np.where(observed.numpy(), values.numpy(), np.nan)
    scaling = Scaling("instance", 3)
    scale = scaling.measure(values, observed)
    assert np.allclose(scale.location[:, 0], np.nanmean(holed, 1), rtol=1e-12)
    assert np.allclose(scale.scale[:, 0], np.nanstd(holed, 1), rtol=1e-9)
    # What is not observed has no say, not even as an infinity that was zeroed.
    assert torch.equal(scaling.measure(torch.where(observed, values, 1e30), observed).scale, scale.scale)
    scaling.fit(values.flatten(0, 1), observed.flatten(0, 1))
    flat = holed.reshape(-1, 3)
    assert np.allclose(scaling.mean, np.nanmean(flat, 0), rtol=1e-12)
    assert np.allclose(scaling.std, np.nanstd(flat, 0), rtol=1e-9)
    # RevIN's 1e-5 is in squared units of the training rows.
    revin = np.sqrt(np.nanvar(holed, 1) + 1e-5 * np.nanvar(flat, 0))
    assert np.allclose(scaling.measure(values, observed).scale[:, 0], revin, rtol=1e-9)
    robust = Scaling("robust", 3).measure(values, observed)
    assert np.allclose(robust.location[:, 0], np.nanmedian(holed, 1), rtol=1e-12)
    quartiles = np.nanquantile(holed, [0.25, 0.75], axis=1)
    assert np.allclose(robust.scale[:, 0], (quartiles[1] - quartiles[0]) / 1.349, rtol=1e-9)


def test_revin_affine_is_the_published_formula() -> None:
    values, observed = window()
    observed[:] = True
    scaling = Scaling("instance", 3, affine=True)
    gamma, beta = torch.tensor([0.5, 2.0, 1.5]), torch.tensor([0.1, 0.2, -0.3])
    with torch.no_grad():
        scaling.weight.copy_(gamma)
        scaling.bias.copy_(beta)
    mean, std = values.mean(1, keepdim=True), values.std(1, keepdim=True, correction=0)
    scale = scaling.measure(values, observed)
    expected = (values - mean) / std * gamma + beta
    assert (scaling.apply(values, scale) - expected).abs().max() < 1e-5
    y = torch.randn(4, 6, 3, dtype=torch.float64)
    assert torch.allclose(scale.location + scale.scale * y, (y - beta) / (gamma + 1e-10) * std + mean, rtol=1e-6)


@pytest.mark.parametrize("kind", ["instance", "robust"])
def test_flat_empty_and_spiked_windows(kind: str) -> None:
    values = torch.full((4, 30, 1), 7.0)
    values[1] = 0.0
    values[2, :, 0] = torch.arange(30) % 15 == 0  # mostly constant: no interquartile range
    observed = torch.ones(values.shape, dtype=torch.bool)
    observed[3] = False
    scale = Scaling(kind).measure(values, observed)  # type: ignore[arg-type]
    assert scale.location.isfinite().all()
    assert (scale.scale > 0).all()
    assert (scale.magnitude > 0).all()
    assert scale.location[:, 0, 0].tolist()[:2] == [7.0, 0.0]
    assert scale.scale[:2, 0, 0].tolist() == [7.0, 1.0]
    assert 0.2 < float(scale.scale[2, 0, 0]) < 0.3
    assert (float(scale.location[3, 0, 0]), float(scale.scale[3, 0, 0])) == (0.0, 1.0)
    spiked = torch.randn(1, 100, 1)
    spiked[0, 50] = 1e9
    robust = Scaling("robust")
    assert float(robust.apply(spiked, robust.measure(spiked, spiked.isfinite())).max()) == 50.0
