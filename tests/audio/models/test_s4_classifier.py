"""S4Classifier: padding, sampling rates, sizes, and a batch of the classification task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import longscan
from longscan.audio.models import S4Classifier
from longscan.audio.models.s4_classifier import AveragePool, _BatchNorm
from longscan.core.errors import UserError
from longscan.core.training.tasks import ClassificationTask

POOLED: dict[str, Any] = {"n_layers": 3, "pool": [4, 3], "expand": 2}
SMALL: dict[str, Any] = {"d_model": 8, "n_layers": 2, "d_state": 8, "num_classes": 5}


def _model(name: str = "s4_classifier", **options: Any) -> S4Classifier:
    model = longscan.create_model(name, **{**SMALL, **options})
    assert isinstance(model, S4Classifier)
    return model


def test_published_size() -> None:
    """The backbone of the published recipe has 302,080 parameters."""
    model = longscan.create_model("s4_classifier")
    parameters = sum(p.numel() for name, p in model.named_parameters() if name.startswith(("blocks.", "norm.")))
    assert parameters == 302_080
    assert model(torch.randn(2, 64, 1)).shape == (2, 35)


@pytest.mark.parametrize("options", [{}, {"prenorm": False}, {"norm": "layer"}, {"mixer": "s4d"}, POOLED], ids=str)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_padding_does_not_matter(options: dict[str, Any], training: bool) -> None:
    model = _model(**options).double().train(training)
    x = torch.randn(2, 50, 1, dtype=torch.float64)
    mask = torch.zeros(2, 90, dtype=torch.bool)
    mask[:, :50] = True
    padded = torch.cat([x, 100 * torch.randn(2, 40, 1, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(model(padded, mask=mask), model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, POOLED], ids=str)
def test_sequences_of_different_lengths(options: dict[str, Any]) -> None:
    model = _model(**options).double().eval()
    x = torch.randn(2, 60, 1, dtype=torch.float64)
    mask = torch.arange(60) < torch.tensor([[60], [23]])
    found = model(x, mask=mask)
    torch.testing.assert_close(found[1:], model(x[1:, :23]), rtol=1e-9, atol=1e-9)


def test_pool_halves_the_width_of_time_and_doubles_the_features() -> None:
    model = _model(**POOLED).eval()
    assert model.forward_features(torch.randn(2, 50, 1)).shape == (2, 5, 32)
    x, kept, _ = AveragePool(2, 1, 1)(
        torch.tensor([[[1.0], [3.0], [5.0], [9.0], [7.0]]]), torch.tensor([[True] * 3 + [False] * 2])
    )
    assert kept.tolist() == [[True, True, False]]
    pool = AveragePool(2, 1, 1)
    torch.nn.init.ones_(pool.linear.weight)
    torch.nn.init.zeros_(pool.linear.bias)
    x, _, _ = pool(torch.tensor([[[1.0], [3.0], [5.0], [9.0]]]), torch.tensor([[True, True, True, False]]))
    assert x.flatten().tolist() == [2.0, 5.0]
    with pytest.raises(UserError, match=r"pool is \[4\] with n_layers 3"):
        _model(n_layers=3, pool=[4])


def test_pools_last_as_long_at_another_rate() -> None:
    """Half the samples with rate 2: only the first stage sees another rate, and the logits hardly change."""
    torch.manual_seed(0)
    model = _model(mixer="s4d", n_ssm=None, n_layers=3, pool=[4, 4], d_model=16).double().eval()
    seconds = torch.arange(2048, dtype=torch.float64) / 8000
    wave = torch.sin(2 * math.pi * 150 * seconds) + torch.cos(2 * math.pi * 90 * seconds)
    whole, half = model(wave[None]), model(wave[None, ::2], rate=2.0)
    assert model.forward_features(wave[None, ::2], rate=2.0).shape == model.forward_features(wave[None]).shape
    assert ((half - whole).norm() / whole.norm()).item() < 0.004
    _, _, rate = AveragePool(4, 1, 1)(torch.zeros(1, 9, 1), None, 3.0)
    assert rate == 0.75


def test_statistics_of_padded_batches_are_those_of_real_positions() -> None:
    x = 3 + 2 * torch.randn(4, 30, 6)
    mask = torch.arange(30) < torch.tensor([[30], [7], [12], [1]])
    found, expected = _BatchNorm(6), torch.nn.BatchNorm1d(6)
    y, wanted = found(x, mask), expected(x[mask])
    torch.testing.assert_close(y[mask], wanted, rtol=1e-5, atol=1e-5)
    assert not y[~mask].any()
    torch.testing.assert_close(found.running_mean, expected.running_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.running_var, expected.running_var, rtol=1e-5, atol=1e-6)
    assert found.num_batches_tracked == 1


@pytest.mark.parametrize("options", [{}, POOLED], ids=str)
@pytest.mark.parametrize("mixer", ["s4", "s4d"])
def test_half_the_sampling_rate(mixer: str, options: dict[str, Any]) -> None:
    """A smooth signal sampled at half the rate gives nearly the same logits with rate 2, and others without."""
    model = _model(mixer=mixer, layer={"dt_min": 0.002, "dt_max": 0.01}, **options).double().eval()
    # The layer norm would hide a change of scale.
    t = torch.arange(4000, dtype=torch.float64) / 4000
    x = (torch.sin(2 * math.pi * 5 * t) + 0.5 * torch.cos(2 * math.pi * 11 * t))[None, :, None]
    with torch.no_grad():
        full, half, unscaled = model(x), model(x[:, ::2], rate=2.0), model(x[:, ::2])
    change = float((half - full).abs().max())
    assert change < 0.15 * float((unscaled - full).abs().max())


def test_waveforms_without_a_channel_axis() -> None:
    model = _model().eval()
    x = torch.randn(2, 40)
    assert torch.equal(model(x), model(x[..., None]))


def test_a_task_trains_it() -> None:
    """A few steps of the shared task tell two pitches apart."""
    model = _model(num_classes=2, mixer="s4d", norm="layer")
    task = ClassificationTask(model)
    t = torch.arange(200) / 200
    frequencies = torch.tensor([4.0, 40.0] * 4)
    batch: dict[str, Tensor] = {
        "input_ids": torch.sin(2 * math.pi * frequencies[:, None] * t)[..., None],
        "mask": torch.ones(8, 200, dtype=torch.bool),
        "labels": torch.tensor([0, 1] * 4),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = float(task.loss(batch).detach())
    for _ in range(15):
        optimizer.zero_grad()
        loss = task.loss(batch)
        loss.backward()
        optimizer.step()
    assert float(task.loss(batch).detach()) < 0.5 * first


def test_dropout_drops_whole_features() -> None:
    model = _model(dropout=0.5, norm="layer").train()
    x = torch.randn(1, 30, 1)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_saved_models_are_the_same(tmp_path: Path) -> None:
    model = _model(class_names=("yes", "no"), num_classes=None)
    model(torch.randn(3, 40, 1))  # moves the running statistics and sets the kernels' length
    model.eval().save_pretrained(tmp_path)
    again = longscan.from_pretrained(tmp_path)
    x = torch.randn(2, 80, 1)
    assert again.config.class_names == ("yes", "no")
    assert torch.equal(again(x), model(x))
    other = longscan.from_pretrained(tmp_path, num_classes=7, class_names=None)
    assert other(x).shape == (2, 7)


def test_errors() -> None:
    with pytest.raises(UserError, match="2 channels, this model reads 1"):
        _model()(torch.zeros(1, 10, 2))
    with pytest.raises(UserError, match="norm is 'group'"):
        _model(norm="group")
    with pytest.raises(UserError, match="head is 'language_model'"):
        _model(head="language_model")
