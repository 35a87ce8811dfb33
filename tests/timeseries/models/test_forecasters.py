"""The contract of every registered forecaster, and what each model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longscan import create_model, from_pretrained, list_models
from longscan.core.errors import UserError
from longscan.timeseries.baselines import linear
from longscan.timeseries.ltsf import evaluate_ltsf, load_ltsf
from longscan.timeseries.models import Forecaster, LinearForecaster, SequenceForecaster
from longscan.timeseries.models.heads import DECILES

LOOKBACK, HORIZON, VARIATES = 40, 12, 3
#: Models that do not forecast, or not what follows.
OTHERS = ("hiss", "series_classifier", "kernel_bank_classifier", "series_imputer")
NAMES = [name for name in list_models(domain="timeseries") if name not in OTHERS]
HEADS = ("point", "quantiles", "normal", "student_t", "negative_binomial", "samples")
SMALL = {"xlstm_time": {"d_model": 32}, "s_mamba": {"d_model": 32, "d_inner": 32}, "ls4": {"d_model": 16, "samples": 8}}


def make(name: str, **options: Any) -> Forecaster:
    torch.manual_seed(0)
    variates = {"variates": VARIATES} if name == "ls4" else {}
    sizes = {"lookback": LOOKBACK, "horizon": HORIZON}
    return create_model(name, **{**sizes, **variates, **SMALL.get(name, {}), **options})  # type: ignore[return-value]


def windows(batch: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    whole = 200 + 30 * torch.randn(batch, LOOKBACK + HORIZON, VARIATES, generator=generator).abs()
    return whole[:, :LOOKBACK].round(), whole[:, LOOKBACK:].round()


def predict(model: Forecaster, past: Tensor, **options: Any) -> Any:
    torch.manual_seed(1)  # of models that draw
    levels = () if model.config.head == "point" else (0.05, 0.5, 0.9)
    return model.predict(past, levels=levels, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", HEADS)
def test_every_model_with_every_head(name: str, head: str) -> None:
    if name == "ls4" and head != "samples":
        with pytest.raises(UserError, match="LS4 draws samples"):
            make(name, head=head)
        return
    model = make(name, head=head)
    past, target = windows()
    loss = model.loss(past, target)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    forecast = predict(model, past, horizon=7)
    assert forecast.point.shape == (4, 7, VARIATES)
    assert forecast.point.dtype == torch.float64
    # An untrained model begins at the level of the window (200 and more), in units of the data.
    assert ((forecast.point > 20) & (forecast.point < 1000)).all()
    if head != "point":
        assert forecast.quantiles.shape == (3, 4, 7, VARIATES)
        assert (forecast.quantiles.diff(dim=0) >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_missing_values_have_no_say(name: str) -> None:
    model = make(name)
    past, target = windows()
    observed = torch.rand(past.shape, generator=torch.Generator().manual_seed(5)) < 0.7
    observed[1, :, 1] = False  # a variate without an observation
    observed[2] = False  # a window without
    observed[3, :20] = False  # a series that begins later
    with torch.no_grad():
        expected = predict(model, torch.where(observed, past, torch.nan))
        assert expected.point.isfinite().all()
        for junk in (0.0, 1e30, torch.inf):
            found = predict(model, torch.where(observed, past, junk), observed=observed)
            assert torch.equal(found.point, expected.point)
        whole = predict(model, past)
        assert not torch.equal(whole.point, expected.point)
        both = observed[:, :HORIZON]
        torch.manual_seed(2)
        loss = model.loss(past, torch.where(both, target, torch.nan), observed)
        torch.manual_seed(2)
        assert torch.equal(loss, model.loss(past, torch.where(both, target, 1e5), observed, both))
        assert loss.isfinite()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ls4"])
def test_forecasts_do_not_depend_on_the_batch(name: str) -> None:
    model = make(name)
    past, _ = windows(9)
    whole = predict(model, past).point
    for i in range(9):
        assert torch.allclose(predict(model, past[i : i + 1]).point, whole[i : i + 1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = make(name, scaling="standard", head="samples" if name == "ls4" else "student_t")
    past, _ = windows()
    model.fit_scaling(past.flatten(0, 1))
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert loaded.scaling.fitted
    for one, two in zip(predict(model, past)[:3:2], predict(loaded, past)[:3:2], strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scaling", ["instance", "robust", "standard"])
def test_forecasts_follow_the_units(name: str, scaling: str) -> None:
    """A series in other units gives the same forecast in those units."""
    model = make(name, scaling=scaling)
    past, target = windows()
    results = []
    for factor, offset in ((1.0, 0.0), (1e-3, 1e2), (1e6, -1e9)):
        moved = past.double() * factor + offset
        model.fit_scaling(moved.flatten(0, 1))
        torch.manual_seed(3)
        loss = float(model.loss(moved, target.double() * factor + offset).detach())
        results.append(((predict(model, moved).point - offset) / factor, loss))
    for point, loss in results[1:]:
        assert (point - results[0][0]).abs().max() < 1e-3
        assert abs(loss - results[0][1]) < 1e-3 * abs(results[0][1]) + 1e-4


@pytest.mark.parametrize(
    "name", ["ltsf_nlinear", "mamba_patch_forecaster", "mamba_rollout_forecaster", "s4d_forecaster"]
)
def test_training_learns_a_season(name: str) -> None:
    model = make(name)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)  # at 1e-2 the roll-out depends on rounding
    time = torch.arange(400.0)
    series = 50 + 10 * torch.sin(time * 2 * torch.pi / 8) + 3 * torch.sin(time * 2 * torch.pi / 20)
    rows = series.unfold(0, LOOKBACK + HORIZON, 1).unsqueeze(-1)
    model.fit_scaling(series[:, None])
    torch.manual_seed(0)
    for _ in range(60):
        chosen = rows[torch.randint(0, 300, (16,))]
        loss = model.loss(chosen[:, :LOOKBACK], chosen[:, LOOKBACK:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = rows[-20:]
    error = (model.predict(test[:, :LOOKBACK]).point - test[:, LOOKBACK:]).square().mean()
    assert error < 0.3 * test.var(), f"{float(error):.3f} of {float(test.var()):.3f}"


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_stays_near(name: str) -> None:
    model = make(name, scaling="standard")
    past, target = windows()
    past, target = past + 1e6, target + 1e6
    model.fit_scaling(past.flatten(0, 1))
    expected = predict(model, past).point
    with torch.autocast("cpu", torch.bfloat16):
        found = predict(model, past).point
        assert model.loss(past, target).isfinite()
    assert (found - expected).abs().max() < 0.1 * past.std()
    kept = model.scaling.mean.clone()
    model.half()
    assert torch.equal(model.scaling.mean, kept)
    assert kept.dtype == torch.float64


def test_covariates_and_static_properties() -> None:
    for decoder in ("last", "flatten", "rollout"):
        model = make(
            "mamba_forecaster",
            decoder=decoder, patch=4, past_covariates=2, future_covariates=3, static_covariates=2,
            variates=VARIATES, variate_embedding=True,
        )  # fmt: skip
        past, target = windows()
        extra = {
            "past_covariates": 1e3 + 10 * torch.randn(4, LOOKBACK, 2),
            "future_covariates": torch.randn(4, HORIZON, 3),
            "static": torch.randn(4, 2),
        }
        model.fit_scaling(past.flatten(0, 1), past_covariates=extra["past_covariates"].flatten(0, 1))
        model.loss(past, target, **extra).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
        base = model.predict(past, **extra).point
        for name in extra:
            changed = extra | {name: extra[name] + 1}
            assert not torch.equal(model.predict(past, **changed).point, base), name
            with pytest.raises(UserError, match=f"{name} missing; this model was made for"):
                model.predict(past, **{key: value for key, value in extra.items() if key != name})
        holed = extra["past_covariates"].clone()
        holed[0, 3, 0] = torch.nan
        assert model.predict(past, **extra | {"past_covariates": holed}).point.isfinite().all()
    # A rollout's step sees its own future covariates and those before, not those after.
    changed = extra["future_covariates"].clone()
    changed[:, 4:] += 1
    moved = model.predict(past, **extra | {"future_covariates": changed}).point - base
    assert moved[:, :4].abs().max() < 1e-4 * base.abs().max()
    assert moved[:, 4:].abs().max() > 1e-4


def test_any_horizon_and_any_history() -> None:
    model = make("mamba_rollout_forecaster")
    past, _ = windows()
    far = model.predict(past, horizon=50).point
    assert far.shape == (4, 50, VARIATES)
    assert torch.allclose(far[:, :HORIZON], model.predict(past).point, rtol=1e-6)
    assert not torch.allclose(model.predict(past[:, -7:]).point, model.predict(past).point)
    flat = make("s4d_patch_forecaster")
    with pytest.raises(UserError, match=r"horizons up to 12, not 13; train it for that one"):
        flat.predict(past, horizon=13)
    # A window of fixed length: cut to the last steps, or padded in front with what is not observed.
    longer = torch.cat([torch.randn(4, 5, VARIATES), past], 1)
    assert torch.equal(flat.predict(longer).point, flat.predict(past).point)
    padded = torch.cat([torch.full((4, 10, VARIATES), torch.nan), past[:, 10:]], 1)
    assert torch.equal(flat.predict(past[:, 10:]).point, flat.predict(padded).point)


def test_linear_models_are_the_published_ones() -> None:
    past, target = windows()
    for name, module in (("linear", linear.Linear), ("nlinear", linear.NLinear), ("dlinear", linear.DLinear)):
        model = make(name, scaling="none", initialization="torch")
        torch.manual_seed(0)
        twin = module(LOOKBACK, HORIZON, initialization="torch")
        twin.load_state_dict(model.maps.state_dict())
        assert set(twin.state_dict()) <= {f"{n}.{p}" for n in twin.names for p in ("weight", "bias")}
        with torch.no_grad():
            assert torch.allclose(model(past).point().float(), twin(past), rtol=1e-6)
            assert torch.allclose(model.loss(past, target), F.mse_loss(twin(past), target), rtol=1e-6)
    # 1 / L: training begins at the mean of the window (NLinear and the others alike), whatever the head.
    for head in HEADS[:4]:
        model = make("nlinear", head=head)
        model.fit_scaling(past.flatten(0, 1))
        with torch.no_grad():
            model.maps.Linear.bias.zero_()
        assert torch.allclose(model.predict(past).point, past.mean(1, keepdim=True).double().expand(-1, HORIZON, -1))


def test_individual_maps() -> None:
    model = make("dlinear", individual=True, variates=VARIATES)
    past, _ = windows()
    assert isinstance(model, LinearForecaster)
    assert model.predict(past).point.shape == (4, HORIZON, VARIATES)
    with pytest.raises(UserError, match="individual maps need the number of variates"):
        make("dlinear", individual=True)


def test_a_repeated_last_value_by_nlinear_scores_as_the_protocol_says() -> None:
    """In the LTSF protocol, through our units: NLinear with zero weights is repeat-last, 1.2944 on ETTh1."""
    data = load_ltsf("ETTh1")
    model = create_model("nlinear", lookback=96, horizon=96)
    nn.init.zeros_(model.maps.Linear.weight)
    nn.init.zeros_(model.maps.Linear.bias)

    def forecast(inputs: np.ndarray) -> np.ndarray:
        return model.predict(torch.tensor(np.asarray(inputs))).point.numpy()

    score = evaluate_ltsf(forecast, data, 96, 96)
    assert "MSE 1.2944, MAE 0.7132 over 2785 windows" in str(score)


def test_channel_independence_and_mixing() -> None:
    past, _ = windows()
    changed = past.clone()
    changed[:, :, 0] = torch.randn(4, LOOKBACK)
    for name, mixes in (("mamba_patch_forecaster", False), ("s_mamba", True), ("xlstm_time", True)):
        model = make(name)
        moved = (model.predict(changed).point - model.predict(past).point)[:, :, 1:].abs().max()
        assert (moved > 1e-6) == mixes, name


def test_s_mamba_against_its_equations() -> None:
    """Facts of the published model: both scans over variates, post-norm, marks as tokens, d_conv 2, expand 1."""
    model = make("s_mamba", past_covariates=2, dropout=0.3).eval()
    past, _ = windows()
    marks = torch.randn(4, LOOKBACK, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        mean, std = past.mean(1, keepdim=True), past.std(1, keepdim=True, correction=0)
        x = model.embed(torch.cat([(past - mean) / std, marks], 2).transpose(1, 2))
        for block in model.blocks:
            ahead, behind = block.mixer.forward_mixer, block.mixer.reverse_mixer
            assert (ahead.d_conv, ahead.d_inner, ahead.d_state) == (2, 32, 2)
            x = block.norm1(x + ahead(x) + behind(x.flip(1)).flip(1))
            x = block.norm2(x + block.mlp.fc2(F.gelu(block.mlp.fc1(x))))
        expected = model.output(model.norm(x)[:, :VARIATES]).transpose(1, 2) * std + mean
        assert torch.allclose(model.predict(past, past_covariates=marks).point.float(), expected, rtol=1e-5)


def test_xlstm_time_starts_from_the_decomposition() -> None:
    model = make("xlstm_time", affine=False, mixer="mlstm").eval()
    seen: list[Tensor] = []
    model.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    past, _ = windows()
    model.predict(past)
    with torch.no_grad():
        biases = model.seasonal.bias + model.trend.bias
    # Both maps are the mean at first, and remainder + trend is the series: of mean zero.
    assert (seen[0] - biases).abs().max() < 1e-5


@pytest.mark.parametrize("mixer", ["mamba", "s4d", "s5", "lru", "mlstm", "slstm", "attention", "hyena"])
def test_any_mixer_by_configuration(mixer: str) -> None:
    past, target = windows()
    for options in ({"mixer": mixer}, {"mixer": {"name": "bidirectional", "mixer": mixer}, "decoder": "flatten"}):
        model = make("mamba_forecaster", patch=4, d_model=16, channel_mixer="gated_mlp", **options)
        assert isinstance(model, SequenceForecaster)
        model.loss(past, target).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_linear_skip_contains_nlinear() -> None:
    model = make("mamba_patch_forecaster", linear_skip=True, head="quantiles", quantile_levels=DECILES)
    past, _ = windows()
    with torch.no_grad():
        nn.init.zeros_(model.output.weight)
    # Begins at NLinear with weights 1 / L: the window's mean.
    assert torch.allclose(
        model.predict(past).point, past.double().mean(1, keepdim=True).expand(-1, HORIZON, -1), rtol=1e-5
    )


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("mamba_forecaster", {"decoder": "first"}, "decoder='first' is unknown"),
        ("mamba_forecaster", {"mixer": "mambo"}, "mixer 'mambo' is unknown"),
        ("mamba_forecaster", {"horizon": 0}, "horizon=0 must be at least 1"),
        ("mamba_forecaster", {"patch": 0}, "patch=0 must be at least 1"),
        ("mamba_forecaster", {"linear_skip": True}, "needs decoder='flatten'"),
        ("mamba_forecaster", {"variate_embedding": True}, "give variates"),
        ("mamba_forecaster", {"point_loss": "mape"}, "point_loss='mape' is unknown"),
        ("mamba_forecaster", {"loss_units": "raw"}, "loss_units='raw' is unknown"),
        ("mamba_forecaster", {"scaling": "revin"}, "scaling='revin' is unknown"),
        ("mamba_forecaster", {"head": "gauss"}, "head='gauss' is unknown"),
        ("xlstm_time", {"kernel": 4}, "kernel=4 must be odd"),
        ("ltsf_linear", {"kind": "ridge"}, "kind='ridge' is unknown"),
        ("ls4", {"variates": None}, "give variates"),
        ("s_mamba", {"static_covariates": 1}, "covariates of the past alone"),
    ],
)
def test_mistakes_in_configurations(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(name, **options)
    assert "\n" not in str(caught.value)


def test_mistakes_in_calls() -> None:
    model = make("mamba_forecaster", variates=VARIATES)
    past, _ = windows()
    for call, message in (
        (lambda: model.predict(past[0]), r"past of shape \(40, 3\), expected \(batch, lookback, variates\)"),
        (lambda: model.predict(past[:, :, :2]), "past has 2 variates, this model was made for 3"),
        (lambda: model.predict(past, levels=(0.5,)), "train it with head='quantiles'"),
        (lambda: model.predict(past, horizon=0), "horizon=0 must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            call()
