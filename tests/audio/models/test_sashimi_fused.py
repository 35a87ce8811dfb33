"""The kernels that draw samples on a GPU: on one where there is one, else through Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import longscan
from longscan.audio.generation import sample_codes
from longscan.audio.models import SaShiMi, sashimi_fused, sashimi_sampling
from longscan.audio.models.sashimi_fused import FusedProgram
from longscan.audio.models.sashimi_sampling import FusedGeneration

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TINY: dict[str, Any] = {"d_model": 8, "n_layers": 1, "d_state": 8, "vocab_size": 40}
PROMPT, COUNT = 21, 18  # from within a period past the end of one, and the first use of its coarsest position


def _model(**options: Any) -> SaShiMi:
    torch.manual_seed(0)
    model = longscan.create_model("sashimi", **{**TINY, **options}).to(DEVICE).eval()
    assert isinstance(model, SaShiMi)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".norm." in f".{name}":
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def _both(model: SaShiMi, count: int, streams: int = 2, **options: Any) -> tuple[Tensor, Tensor]:
    """Logits of kernels and of steps for the same codes, (count, streams, codes)."""
    codes = torch.randint(0, 40, (PROMPT + count, streams), device=DEVICE)
    prompt, ahead = codes[:PROMPT], codes[PROMPT:]
    _, state = model.prefill(prompt.T, model.init_state(streams, DEVICE))
    fused = FusedProgram.of(state.program)
    assert fused is not None
    found: list[Tensor] = []

    def pick(logits: Tensor, numbers: Tensor) -> Tensor:
        found.append(logits.clone())
        return ahead[min(len(found), count - 1)]

    before = state.data.clone()
    FusedGeneration(fused, state, prompt, ahead[0], pick=pick, graph=False, **options).run(np.zeros((count, streams)))
    assert torch.equal(state.data, before)
    expected = []
    for given in ahead:
        logits, state = model.step(given, state)
        expected.append(logits)
    return torch.stack(found), torch.stack(expected)


def _agree(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) <= tolerance


@pytest.mark.parametrize(
    "options",
    [
        {"d_model": 12, "n_layers": 2},
        {"mixer": "s4d", "final_act": "glu", "n_ssm": None},
        {"unet": True, "norm": "layer", "weight_norm": False},
        {"pool": ()},
        {"pool": (2,), "center_ff": 0},
        {"layer": {"rank": 2, "init": "legt"}},
    ],
    ids=["s4", "s4d", "unet", "one rate", "two rates", "rank 2"],
)
def test_logits_equal_those_of_steps(options: dict[str, Any]) -> None:
    _agree(*_both(_model(**options), COUNT))


def test_widths_beyond_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sashimi_fused, "TILE", 512)
    monkeypatch.setattr(sashimi_fused, "MODES_TILE", 64)
    _agree(*_both(_model(d_model=32, final_act="glu"), 17, 1))


def test_weights_loaded_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sashimi_sampling, "_EARLY", 0)
    _agree(*_both(_model(pool=(2,), final_act="glu"), 5, 1))


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7}, {"greedy": True}, {"top_k": 5, "temperature": 1.5}, {"top_p": 0.8}],
    ids=["plain", "temperature", "greedy", "top-k", "top-p"],
)
def test_draws_equal_those_of_steps(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, length = _model(pool=(4,)), 0 if options.get("greedy") else 7

    def draw(backend: str, frames: int = 12) -> tuple[np.ndarray, np.ndarray]:
        monkeypatch.setenv("LONGSCAN_BACKEND", backend)
        return sample_codes(model, np.arange(length), frames, [3, 4, 5], zero=20, device=DEVICE, **options)

    codes, scores = draw("torch")
    found_codes, found_scores = draw("triton")
    assert codes.shape == (3, 12)
    np.testing.assert_array_equal(found_codes, codes)
    np.testing.assert_allclose(found_scores, scores, atol=1e-5)
    assert len({tuple(stream) for stream in codes}) == (1 if options.get("greedy") else 3)


def test_blocks_of_samples_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSCAN_BACKEND", "triton")
    model, numbers = _model(pool=(4,)), np.random.default_rng(0).random((11, 1), dtype=np.float32)

    def draw(*cuts: int) -> Tensor:
        state = model.init_state(1, DEVICE)
        fused = state.program.fused
        assert fused is not None
        none = torch.empty(0, 1, dtype=torch.int64, device=DEVICE)
        generation = FusedGeneration(fused, state, none, torch.tensor([5], device=DEVICE), graph=False)
        return torch.cat([generation.run(part)[0] for part in np.split(numbers, cuts)])

    assert torch.equal(draw(), draw(3, 4))


@pytest.mark.parametrize(
    "options",
    [{"layer": {"activation": "silu"}}, {"layer": {"channels": 2}}, {"pool": (3,)}, {"vocab_size": None}],
    ids=["activation", "channels", "pool", "no codes"],
)
def test_other_networks_are_stepped(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSCAN_BACKEND", "triton")
    assert _model(**options).init_state(1, DEVICE).program.fused is None


def test_backend_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    monkeypatch.delenv("LONGSCAN_BACKEND", raising=False)
    assert model.init_state(1, "cpu").program.fused is None
    monkeypatch.setenv("LONGSCAN_BACKEND", "torch")
    assert model.init_state(1, DEVICE).program.fused is None


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("name", ["sashimi", "sashimi_unet"])
def test_published_sizes_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels against steps, and recorded graphs against kernels one by one, also where branches run at once."""
    torch.manual_seed(0)
    model = longscan.create_model(name).to(DEVICE).eval()
    assert isinstance(model, SaShiMi)
    _agree(*_both(model, 40, 3), 1e-4)
    seeds = list(range(40))
    numbers = np.stack([np.random.default_rng(seed).random(1000, dtype=np.float32) for seed in seeds], 1)
    results = []
    for graph in (False, True):
        state = model.init_state(len(seeds), DEVICE)
        fused = state.program.fused
        assert fused is not None
        start = torch.full((1, len(seeds)), 128, device=DEVICE)
        generation = FusedGeneration(fused, state, start, start[0], graph=graph)
        results.append([generation.run(part) for part in np.split(numbers, [300])])
        assert (generation._captured is not None) == graph
    for (codes, scores), (expected, expected_scores) in zip(*results, strict=True):
        assert torch.equal(codes, expected)
        assert torch.equal(scores, expected_scores)
    assert len({tuple(stream.tolist()) for stream in results[0][1][0].T}) == len(seeds)
