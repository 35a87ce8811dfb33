"""Classification of series: padding, missing values, scaling, training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from longscan import create_model, from_pretrained
from longscan.core.errors import UserError
from longscan.timeseries.models import SeriesClassifier


def make(**options: object) -> SeriesClassifier:
    torch.manual_seed(0)
    sizes = {"variates": 2, "num_classes": 3, "d_model": 16, "n_layers": 2}
    return create_model("series_classifier", **{**sizes, **options})  # type: ignore[return-value]


@pytest.mark.parametrize("mixer", [{"name": "bidirectional", "mixer": "mamba"}, "s4d", "mlstm"])
@pytest.mark.parametrize("scaling", ["standard", "instance"])
def test_padding_and_missing_values_have_no_say(mixer: object, scaling: str) -> None:
    model = make(mixer=mixer, scaling=scaling).eval()
    x = 5 + torch.randn(3, 20, 2)
    lengths = torch.tensor([20, 7, 1])
    mask = torch.arange(20) < lengths[:, None]
    with torch.no_grad():
        found = model(torch.where(mask[..., None], x, 1e9), mask)
        for i, length in enumerate(lengths.tolist()):
            # The convolution reads zeros behind a series, padded or not.
            assert torch.allclose(found[i], model(x[i : i + 1, :length])[0], atol=1e-4)
        holed, observed = x.clone(), torch.ones(x.shape, dtype=torch.bool)
        holed[0, 3, 1] = torch.nan
        observed[0, 3, 1] = False
        assert torch.equal(model(holed), model(x, observed=observed))
        assert model(torch.full((1, 5, 2), torch.nan)).isfinite().all()


def test_it_learns_frequencies_of_unequal_lengths(tmp_path: Path) -> None:
    model = make(variates=1, dropout=0.0, mixer="s4d")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)

    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 3, (count,), generator=generator)
        lengths = torch.randint(20, 40, (count, 1), generator=generator)
        phase = 6 * torch.rand(count, 1, generator=generator)
        x = torch.sin(torch.arange(40) * (0.4 + 0.4 * labels[:, None]) + phase)
        return 1e3 + 10 * x.unsqueeze(-1), torch.arange(40) < lengths, labels

    model.fit_scaling(batch(100)[0].flatten(0, 1))
    for _ in range(60):
        x, mask, labels = batch(16)
        loss = F.cross_entropy(model(x, mask), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    x, mask, labels = batch(100)
    with torch.no_grad():
        assert (model(x, mask).argmax(1) == labels).float().mean() > 0.9
        model.save_pretrained(tmp_path)
        assert torch.equal(from_pretrained(tmp_path).eval()(x, mask), model(x, mask))


def test_mistakes_with_series() -> None:
    with pytest.raises(UserError, match=r"series of shape \(1, 5, 3\), expected \(batch, time, 2\)"):
        make()(torch.randn(1, 5, 3))
    with pytest.raises(UserError, match="padding before or within"):
        make()(torch.randn(1, 5, 2), torch.tensor([[False, True, True, True, True]]))
    with pytest.raises(UserError, match="kernel=4 must be odd"):
        make(kernel=4)
