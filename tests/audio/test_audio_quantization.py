"""Quantisation: the published codes, and a fixed range for streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longscan.audio.quantization import Quantizer, autoregressive_pair
from longscan.core.errors import UserError


@pytest.fixture
def case(golden: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    folder = golden / "audio" / "quantization_a"
    return dict(np.load(folder / "inputs.npz")), dict(np.load(folder / "outputs.npz"))


Case = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


@pytest.mark.parametrize(("law", "name"), [("mu", "mulaw"), ("linear", "linear")])
def test_codes_and_samples_are_the_published_ones(case: Case, law: str, name: str) -> None:
    inputs, outputs = case
    quantizer = Quantizer(8, law, "minmax")  # type: ignore[arg-type]
    for clip, codes in zip(inputs["x"], outputs[f"{name}_8"], strict=True):
        np.testing.assert_array_equal(quantizer.encode(clip), codes)
    np.testing.assert_array_equal(quantizer.encode(inputs["ramp"][0]), outputs[f"ramp_{name}_8"][0])
    np.testing.assert_allclose(quantizer.decode(outputs[f"{name}_8"]), outputs[f"{name}_dec_8"], rtol=0, atol=2e-7)
    np.testing.assert_allclose(quantizer.table[outputs["codes_8"]], outputs[f"{name}_table_8"], rtol=0, atol=2e-7)
    assert quantizer.zero == outputs["q_zero_8"][0]


def test_the_other_mu_law_of_speech_commands(case: Case) -> None:
    inputs, outputs = case
    quantizer = Quantizer(8, "mu_rounded", "minmax")
    for clip, codes in zip(inputs["x"], outputs["scpy_mulaw_8"], strict=True):
        np.testing.assert_array_equal(quantizer.encode(clip), codes)
    np.testing.assert_allclose(quantizer.decode(outputs["scpy_mulaw_8"]), outputs["scpy_mulaw_dec_8"], atol=2e-7)
    assert quantizer.encode(np.full(4, 0.5)).tolist() == [0] * 4


def test_autoregressive_pairs_begin_with_silence(case: Case) -> None:
    _, outputs = case
    for codes, wanted, target in zip(outputs["mulaw_8"], outputs["ar_input_8"], outputs["ar_target_8"], strict=True):
        inputs, targets = autoregressive_pair(codes[:, 0], Quantizer())
        np.testing.assert_array_equal(inputs, wanted)
        np.testing.assert_array_equal(targets, target[:, 0])


def test_known_values() -> None:
    minmax = Quantizer(range="minmax")
    # What the convention makes of a symmetric clip: the zero is a hair below zero, and 255 does not come back as 1.
    assert minmax.encode(np.array([-1.0, 0.0, 1.0])).tolist() == [0, 127, 255]
    assert minmax.decode(np.array([255]))[0] == pytest.approx(0.9574, abs=5e-5)
    assert Quantizer(law="linear").decode(np.array([255]))[0] == pytest.approx(0.9922, abs=5e-5)
    assert minmax.encode(np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("law", ["mu", "linear", "mu_rounded"])
@pytest.mark.parametrize("bits", [4, 8, 12])
def test_a_fixed_range_is_blind_to_the_rest_of_the_clip(law: str, bits: int) -> None:
    quantizer = Quantizer(bits, law)  # type: ignore[arg-type]
    x = np.random.default_rng(0).uniform(-1, 1, 999).astype(np.float32)
    whole = quantizer.encode(x)
    np.testing.assert_array_equal(whole, np.concatenate([quantizer.encode(x[:100]), quantizer.encode(x[100:])]))
    assert quantizer.encode(np.zeros(1))[0] == quantizer.zero
    assert quantizer.encode(np.array([-9.0, -1.0, 1.0, 9.0])).tolist() == [
        0,
        0,
        quantizer.levels - 1,
        quantizer.levels - 1,
    ]
    # Codes are read as the edges of their bins, so that one may come back as its neighbour; their order stays.
    again = quantizer.encode(quantizer.table)
    assert np.abs(again - np.arange(quantizer.levels)).max() <= 1
    assert (np.diff(quantizer.table) > 0).all()
    assert (np.diff(quantizer.encode(np.sort(x))) >= 0).all()
    assert np.abs(quantizer.decode(whole) - x).max() < (
        2.1 / quantizer.levels if law == "linear" else 18 / quantizer.levels
    )


def test_silence_is_zero_in_both_directions_and_quiet_samples_survive() -> None:
    for range_ in ("fixed", "peak"):
        quantizer = Quantizer(range=range_)  # type: ignore[arg-type]
        assert quantizer.encode(np.zeros(5)).tolist() == [128] * 5
        assert quantizer.decode(np.array([128]))[0] == 0
    assert len(set(Quantizer().encode(np.linspace(0.001, 0.01, 20)).tolist())) > 12
    loud = np.array([0.5, -0.25])
    np.testing.assert_array_equal(Quantizer(range="peak").encode(loud), Quantizer().encode(loud * 2))


def test_errors_name_what_is_known() -> None:
    with pytest.raises(UserError, match=r"bits=20 .* between 2 and 16"):
        Quantizer(20)
    with pytest.raises(UserError, match=r"law='nu' is unknown .*mu"):
        Quantizer(law="nu")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="between 0 and 255; found 256"):
        Quantizer().decode(np.array([3, 256]))
    with pytest.raises(UserError, match="between 0 and 255; found -1"):
        Quantizer().decode(np.array([3, -1]))
