"""Synthetic series: seeds, shapes, and the numbers that each generator is known by."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from longscan.core.errors import UserError
from longscan.timeseries import priors
from longscan.timeseries.priors import draw, draw_mixture, list_priors
from longscan.timeseries.priors.curves import recurrence
from longscan.timeseries.priors.gaussian_processes import _sample
from longscan.timeseries.priors.periods import draw_period


def correlation(series: Tensor, lag: int) -> Tensor:
    """Mean product of standardised values that far apart, (count,)."""
    series = (series - series.mean(1, keepdim=True)) / series.std(1, keepdim=True).clamp(min=1e-9)
    return (series[:, lag:] * series[:, : series.shape[1] - lag]).mean(1)


def test_all_are_in_the_mixture() -> None:
    assert set(priors.WEIGHTS) == set(list_priors())


@pytest.mark.parametrize("name", list_priors())
def test_generator(name: str) -> None:
    """Shape, dtype, seeds; no two series alike, none flat, all of a size that float32 can tell apart."""
    series = draw(name, 9, 120, seed=3)
    assert series.shape == (9, 120)
    assert series.dtype == torch.float32
    assert series.isfinite().all()
    assert series.abs().max() < 1e5
    assert torch.equal(series, draw(name, 9, 120, seed=3))
    assert not torch.equal(series, draw(name, 9, 120, seed=4))
    assert len(series.unique(dim=0)) == 9
    assert (series.std(1) > 1e-4 * (1 + series.mean(1).abs())).float().mean() > 0.7
    assert draw(name, 1, 7).shape == (1, 7)


def test_recurrence_is_that() -> None:
    factor, inputs = torch.rand(3, 20), torch.randn(3, 20)
    expected, value = [], torch.zeros(3)
    for t in range(20):
        value = factor[:, t] * value + inputs[:, t]
        expected.append(value)
    torch.testing.assert_close(recurrence(factor, inputs), torch.stack(expected, 1))


def test_gaussian_process_has_its_covariance() -> None:
    """Eight thousand draws of one kernel: the covariance is the kernel's, normed to a mean variance of 1."""
    time = torch.linspace(0, 1, 12)
    kernel = 3 * torch.exp(-((time[:, None] - time) ** 2) / 0.1).expand(1000, -1, -1)
    series = _sample(kernel, 8, torch.Generator().manual_seed(0))
    assert series.shape == (8000, 12)
    found = series.T @ series / len(series)
    assert (found - kernel[0] / 3).abs().max() < 0.06


def test_kernel_synth_repeats_its_periods() -> None:
    """Among its series are some that repeat every 24 steps, and white noise."""
    repeated = correlation(draw("kernel_synth", 256, 192), 24)
    assert (repeated > 0.7).float().mean() > 0.04
    assert (repeated.abs() < 0.2).any()


def test_forecast_pfn_has_weeks_and_days() -> None:
    series = draw("forecast_pfn", 256, 480, seed=1)
    assert (correlation(series, 24) > 0.5).float().mean() > 0.1
    grown = (series[:, -48:].mean(1) - series[:, :48].mean(1)).abs()
    assert (grown > 0.3).float().mean() > 0.3


def test_seasonal_pattern_is_seasonal() -> None:
    """At its best lag nearly every series resembles itself."""
    series = draw("seasonal_pattern", 64, 400)
    best = torch.stack([correlation(series, lag) for lag in range(3, 134)]).amax(0)
    assert best.median() > 0.6


def test_random_walk_wanders() -> None:
    walks = draw("random_walk", 256, 400)
    assert correlation(walks, 1).median() > 0.95
    assert correlation(walks[:, 1:] - walks[:, :-1], 1).median().abs() < 0.3


def test_regimes_differ() -> None:
    """About a fast mean of -2 and a slow one of 2: two clusters wider apart than noise."""
    series = draw("regime_switching", 64, 1000)
    assert correlation(series, 1).median() > 0.9


def test_sawtooth_has_its_cycles() -> None:
    series = draw("sawtooth", 64, 700)
    jumps = ((series[:, 1:] - series[:, :-1]).abs() > 0.4 * (series.amax(1) - series.amin(1))[:, None]).sum(1)
    assert jumps.min() >= 1
    assert jumps.max() <= 8


def test_anomalies_are_rare_and_regular() -> None:
    series = draw("anomalies", 64, 900)
    centred = (series - series.median(1, keepdim=True).values).abs()
    share = (centred > 0.3 * centred.amax(1, keepdim=True)).float().mean(1)
    assert share.median() < 0.1
    assert share.max() > 0


def test_counts_are_counts() -> None:
    series = draw("counts", 64, 200)
    assert (series == series.round()).all()
    assert series.min() == 0
    assert ((series == 0).float().mean(1) > 0.5).float().mean() > 0.1


def test_periods_fit_the_length() -> None:
    generator = torch.Generator().manual_seed(0)
    periods = draw_period(generator, (2000, 1), 96)
    assert periods.max() <= 32
    assert periods.min() >= 3
    assert (periods == 24).float().mean() > 0.1
    assert draw_period(generator, (50, 1), 7).max() <= 4


def test_mixture() -> None:
    series = draw_mixture(40, 96, seed=5)
    assert series.shape == (40, 96)
    torch.testing.assert_close(series.mean(1), torch.zeros(40), atol=1e-4, rtol=0)
    spread = series.square().mean(1).sqrt()
    assert (((spread - 1).abs() < 1e-3) | (spread < 1e-3)).all()
    assert torch.equal(series, draw_mixture(40, 96, seed=5))
    assert not torch.equal(series, draw_mixture(40, 96, seed=6))


def test_weights_decide() -> None:
    """Of counts alone, without what mixing and augmentation do, the drawn are counts."""
    one = draw_mixture(30, 60, 0, weights={"sawtooth": 1.0, "counts": 0.0})
    assert one.shape == (30, 60)
    with pytest.raises(UserError, match="none is negative"):
        draw_mixture(3, 60, 0, weights={"counts": -1.0})
    with pytest.raises(UserError, match=r"prior 'sawtoth' is unknown.*sawtooth"):
        draw_mixture(3, 60, 0, weights={"sawtoth": 1.0})
    with pytest.raises(UserError, match="need one or more"):
        draw("sines", 0, 60)


def test_hidden_histories_end_observed() -> None:
    observed = priors.hide(4000, 200, torch.Generator().manual_seed(0))
    assert observed[:, -1].all()
    late = ~observed[:, :10].any(1)
    assert math.isclose(float(late.float().mean()), 0.33 * 0.9, abs_tol=0.08)
    assert (observed.sum(1) >= 10).all()
    assert ((~observed).float().mean(1) > 0).float().mean() > 0.35


def test_mix_keeps_most() -> None:
    """A quarter of the series are weighted sums; the others only scaled."""
    series = torch.randn(4000, 30)
    mixed = priors.mix(series, torch.Generator().manual_seed(0))
    scaled = (series - series.mean(1, keepdim=True)) / series.std(1, correction=0, keepdim=True)
    kept = torch.isclose(mixed, scaled, atol=1e-4).all(1).float().mean()
    assert math.isclose(float(kept), 0.75, abs_tol=0.03)


def test_pools_are_functions_of_their_place() -> None:
    pools = priors.SeriesPools({"sawtooth": 3.0, "counts": 1.0}, pools=8, size=5, length=40, seed=1)
    again = priors.SeriesPools({"sawtooth": 3.0, "counts": 1.0}, pools=8, size=5, length=40, seed=1)
    cpu = torch.device("cpu")
    assert sorted(pools.generators(0)) == ["counts"] * 2 + ["sawtooth"] * 6
    first = [pools.pool(0, number, cpu) for number in range(8)]
    assert pools.pool(0, 3, cpu) is first[3]
    for number in (6, 2):
        assert torch.equal(again.pool(0, number, cpu), first[number])
    assert not torch.equal(again.pool(1, 2, cpu), first[2])
    assert torch.equal(again.pool(0, 2, cpu), first[2])
    assert first[0].shape == (5, 40)


def test_what_is_taken_from_pools_lies_in_them() -> None:
    """Equally many pieces from each of the chosen pools, each a piece of one of its series."""
    pools = priors.SeriesPools({"structural": 1.0}, pools=4, size=3, length=50, seed=0)
    generator = torch.Generator().manual_seed(0)
    taken = pools.take(2, np.random.default_rng(0), 6, 20, 2, generator)
    assert taken.shape == (6, 20)
    whole = [pools.pool(2, number, torch.device("cpu")).unfold(1, 20, 1) for number in range(4)]
    found = [[bool((piece == one).all(-1).any()) for one in whole] for piece in taken]
    assert all(sum(row) == 1 for row in found)
    assert sorted(np.sum(found, 0).tolist()) == [0, 0, 3, 3]
