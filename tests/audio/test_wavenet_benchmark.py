"""The peer in the benchmark of generation: WaveNet's queues against its convolutions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture
def wavenet(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    return pytest.importorskip("benchmarks.wavenet")


def test_queues_equal_convolutions(wavenet) -> None:  # type: ignore[no-untyped-def]
    model = wavenet.WaveNet(codes=20, stacks=2, depth=4, channels=8, skip=16, head=12).double()
    ids = torch.randint(0, 20, (3, 60))
    expected = model(ids).detach()
    generation = wavenet.WaveNetGeneration(model, 3)
    generation.queues = generation.queues.double()
    for t in range(ids.shape[1]):
        generation.codes.copy_(ids[:, t])
        torch.testing.assert_close(generation.logits(), expected[:, t], rtol=1e-12, atol=1e-12)


def test_size_and_draws(wavenet) -> None:  # type: ignore[no-untyped-def]
    model = wavenet.WaveNet()
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_161_792
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.fill_(-100.0)
        model.output.bias[[7, 9]] = 0.0
    generation = wavenet.WaveNetGeneration(model, 64)
    drawn = torch.stack([generation.sample().clone() for _ in range(3)])
    assert set(drawn.flatten().tolist()) == {7, 9}
    assert 60 < int((drawn == 7).sum()) < 132
