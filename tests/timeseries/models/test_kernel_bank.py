"""The bank of random kernels: what a kernel is, what padding says, and the regression in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from longscan import create_model, from_pretrained
from longscan.core.errors import UserError
from longscan.timeseries.models.kernel_bank import POOLS, KernelBankClassifier
from longscan.timeseries.models.ridge_head import fit_ridge_head


def make(**options: object) -> KernelBankClassifier:
    sizes = {"variates": 2, "num_classes": 3, "kernels": 24, "length": 30}
    return create_model("kernel_bank_classifier", **{**sizes, **options})  # type: ignore[return-value]


def test_kernels_are_state_spaces_that_pass_no_constant() -> None:
    model = make(kernels=200)
    kernel = model._kernels().double()
    assert kernel.sum(1).abs().max() < 1e-5
    assert (kernel.norm(dim=1) - 1).abs().max() < 1e-5
    # Behind the feed-through each obeys the recurrence of one complex mode.
    root = torch.exp(torch.complex(-model.decay, model.frequency).to(torch.complex128))
    left = kernel[:, 3:] - 2 * root.real[:, None] * kernel[:, 2:-1] + root.abs().square()[:, None] * kernel[:, 1:-2]
    assert left.abs().max() < 1e-5
    assert (1 / model.decay).max() <= 15
    assert model.frequency.max() <= np.pi + 1e-6


def test_outputs_are_convolutions_either_way() -> None:
    model = make(kernels=8)
    inputs, _ = model._inputs(torch.randn(2, 20, 2), None, None)
    kernel = model._kernels()[:, :20]
    seen = []
    for kernels, outputs in model._outputs(inputs, 2):
        for place, number in enumerate(kernels.tolist()):
            mixed = inputs[number % 2] @ model.mix[number]
            mixed = mixed.flip(1) if model.backwards[number] else mixed
            wanted = torch.stack([(mixed[:, : t + 1].flip(1) * kernel[number, : t + 1]).sum(1) for t in range(20)], 1)
            wanted = wanted.flip(1) if model.backwards[number] else wanted
            assert torch.allclose(outputs[0, :, place], wanted, atol=1e-4)
            seen.append(number)
    assert sorted(seen) == list(range(8))
    assert 0 < int(model.backwards.sum()) < 8


def test_pools_are_what_they_are_called() -> None:
    model = make(kernels=22)
    x = torch.randn(3, 25, 2)
    mask = torch.arange(25) < torch.tensor([25, 11, 4])[:, None]
    model.fit(x, torch.tensor([0, 1, 2]), mask)
    features = model.forward_features(x, mask).view(3, 22, POOLS)
    inputs, _ = model._inputs(x, mask, None)
    for kernels, outputs in model._outputs(inputs, 3):
        for place, number in enumerate(kernels.tolist()):
            for row, length in enumerate((25, 11, 4)):
                y = outputs[0, row, place, :length]
                above = y > model.threshold[number]
                group = outputs[0, row, place // 8 * 8 : place // 8 * 8 + 8, :length]
                wins = [(group.argmax(0) == place % 8).sum() / 30, (group.argmin(0) == place % 8).sum() / 30]
                wanted = [above.sum() / 30, 0.0, -0.5, y.max(), *wins]
                if above.any():
                    wanted[1] = (y - model.threshold[number])[above].mean()
                    wanted[2] = torch.arange(length)[above].float().mean() / 30
                assert torch.allclose(features[row, number], torch.tensor(wanted), atol=1e-5)


def test_padding_neighbours_and_units_have_no_say() -> None:
    x = torch.randn(12, 30, 2, dtype=torch.float64)
    lengths = torch.tensor([30, 7, 20] * 4)
    mask = torch.arange(30) < lengths[:, None]
    labels = torch.arange(12) % 3
    torch.manual_seed(3)
    model = make()
    model.fit(x, labels, mask)
    torch.manual_seed(3)
    other = make()
    other.fit(torch.where(mask[..., None], 1e4 + 250 * x, torch.nan), labels, mask)
    with torch.no_grad():
        together = model(torch.where(mask[..., None], x, 1e9), mask)
        for row, length in enumerate(lengths.tolist()):
            assert torch.allclose(together[row], model(x[row : row + 1, :length])[0], atol=2e-3)
        assert torch.allclose(other(1e4 + 250 * x, mask), together, atol=2e-2)
        holed = x.clone()
        holed[0, 3, 1] = torch.nan
        assert torch.equal(model(holed), model(x, observed=~holed.isnan()))
    with pytest.raises(UserError, match=r"expected \(batch, time, 2\)"):
        model(x[..., :1])


def test_ridge_leaves_rows_out_without_fitting_again() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 50, generator=generator, dtype=torch.float64)
    features[:, 7] = 3.0
    labels = (features[:, 0] + features[:, 1] > 0).long()
    found = fit_ridge_head(features, labels, 2)
    mean, std = features.mean(0), features.std(0, correction=0)
    rows = torch.where(std > 1e-9, (features - mean) / torch.where(std > 1e-9, std, 1.0), 0.0)
    unit = (rows @ rows.T).diagonal().mean()
    right = 0
    for row in range(30):
        kept = torch.arange(30) != row
        part, target = rows[kept], 2 * labels[kept].double() - 1
        centre = part.mean(0)
        gram = (part - centre).T @ (part - centre) + found.strength * unit * torch.eye(50, dtype=torch.float64)
        weight = torch.linalg.solve(gram, (part - centre).T @ (target - target.mean()))
        right += int(((rows[row] - centre) @ weight + target.mean() > 0) == bool(labels[row]))
    assert found.left_out_accuracy == pytest.approx(right / 30)
    logits = features @ found.weight.T + found.bias
    target = 2 * labels.double() - 1
    gram = rows.T @ rows + found.strength * unit * torch.eye(50, dtype=torch.float64)
    outputs = rows @ torch.linalg.solve(gram, rows.T @ (target - target.mean())) + target.mean()
    factor = (logits[:, 1] / outputs).median()
    assert factor > 0
    assert torch.allclose(logits, factor * torch.stack([-outputs, outputs], 1), atol=1e-9)
    assert (found.weight[:, 7] == 0).all()


def test_it_is_kept_whole(tmp_path: Path) -> None:
    model = make()
    x = torch.randn(6, 30, 2)
    model.fit(x, torch.tensor([0, 1, 2] * 2))
    loaded = from_pretrained(model.save_pretrained(tmp_path / "bank"))
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("wrong", [{"kernels": 1}, {"variates": 0}, {"length": 1}, {"head": "language_model"}])
def test_bad_dimensions(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        make(**wrong)
