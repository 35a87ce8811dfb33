"""The reference compressor: static curve and time constants by hand, blocks, channels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from longscan.audio.effects.compressor import Compressor, compress, level, static_reduction
from longscan.core.errors import UserError

RATE = 44_100
HARD = Compressor(threshold=-20, ratio=4, attack=0.01, release=0.05, knee=0)


def test_static_curve_by_hand() -> None:
    # Hard knee: 15 dB over the threshold at full scale come out as 15 / 4.
    np.testing.assert_allclose(static_reduction(np.array([-60, -20, -10, 0]), HARD), [0, 0, 7.5, 15])
    soft = replace(HARD, knee=10)
    # In a knee of 10 dB: (3/4) (x + 5)² / 20 at x = -5, -2, 0, 5; beyond it the hard curve.
    wanted = [0, 0.75 * 9 / 20, 0.75 * 25 / 20, 0.75 * 5, 7.5]
    np.testing.assert_allclose(static_reduction(np.array([-25, -22, -20, -15, -10]), soft), wanted)
    np.testing.assert_allclose(static_reduction(np.array([0.0]), replace(HARD, ratio=math.inf)), [20])
    assert not static_reduction(np.linspace(-90, 0, 50), replace(HARD, ratio=1)).any()


def test_level() -> None:
    np.testing.assert_allclose(level(np.array([1.0, -0.1, 10**-3, 0.0])), [0, -20, -60, -120])


def test_steps_have_the_time_constants() -> None:
    """A step from silence to full scale and back."""
    loud = np.concatenate([np.ones(RATE), np.full(RATE, 1e-3)])
    output, _ = compress(loud, RATE, HARD)
    reduction = level(loud) - level(output)
    attack, release = round(0.01 * RATE), round(0.05 * RATE)
    # The first sample of a step is already one step into it.
    for time in (1, 100, attack, 3 * attack):
        assert reduction[time - 1] == pytest.approx(15 * (1 - math.exp(-time / attack)), rel=1e-9)
    assert reduction[attack - 1] == pytest.approx(15 * 0.63212, rel=1e-4)
    assert reduction[RATE - 1] == pytest.approx(15, rel=1e-9)
    for time in (1, release, 3 * release):
        assert reduction[RATE + time - 1] == pytest.approx(15 * math.exp(-time / release), rel=1e-9)
    # Settled, a full-scale input lies at threshold + 20 / ratio = -15 dB.
    assert level(output[RATE - 1 : RATE])[0] == pytest.approx(-15, abs=1e-9)


def test_a_second_of_a_hand_computed_recursion() -> None:
    """Four samples with poles 1/2 (attack) and 1/4 (release)."""
    settings = replace(HARD, attack=1 / math.log(2), release=1 / math.log(4))
    # Wanted reductions 15, 0, 7.5, 15: states 7.5, 1.875, 4.6875, 9.84375.
    samples = np.array([1.0, 0.01, 10**-0.5, -1.0])
    output, state = compress(samples, 1.0, settings)
    reduction = np.array([7.5, 1.875, 4.6875, 9.84375])
    np.testing.assert_allclose(output, samples * 10 ** (-reduction / 20), rtol=1e-12)
    assert state == pytest.approx(9.84375)


def test_blocks_with_the_state_handed_on_are_the_whole() -> None:
    samples = np.random.default_rng(0).standard_normal(5000) * np.linspace(0, 1, 5000)
    whole, last = compress(samples, RATE, HARD)
    for size in (1, 64, 999):
        parts, state = [], 0.0
        for begin in range(0, 5000, size):
            part, state = compress(samples[begin : begin + size], RATE, HARD, state)
            parts.append(part)
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert state == last
    nothing, state = compress(np.zeros(0), RATE, HARD, 3.0)
    assert len(nothing) == 0
    assert state == 3.0


def test_channels_are_turned_down_together_and_makeup_is_a_gain() -> None:
    left = np.random.default_rng(0).uniform(-1, 1, 2000)
    both, _ = compress(np.stack([left, left / 8], 1), RATE, HARD)
    alone, _ = compress(left, RATE, HARD)
    np.testing.assert_allclose(both[:, 0], alone, rtol=1e-12)
    np.testing.assert_allclose(both[:, 1], alone / 8, rtol=1e-12)
    louder, _ = compress(left, RATE, replace(HARD, makeup=20))
    np.testing.assert_allclose(louder, 10 * alone, rtol=1e-12)
    at_once, _ = compress(np.ones(3), RATE, replace(HARD, attack=0, release=0))
    np.testing.assert_allclose(level(at_once), -15)


def test_impossible_settings() -> None:
    with pytest.raises(UserError, match=r"ratio=0\.5 .* at least 1"):
        Compressor(ratio=0.5)
    with pytest.raises(UserError, match=r"attack=-1 .* negative"):
        Compressor(attack=-1)
    with pytest.raises(UserError, match="release=nan"):
        Compressor(release=math.nan)
