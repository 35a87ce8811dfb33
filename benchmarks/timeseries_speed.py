"""A forecaster's training step beside PatchTST of equal size, and one step of a stream, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import longscan
from longscan.timeseries.models import ForecastStream

from . import Row, measure
from .patchtst import PatchTST

NAME = "timeseries_speed"
BATCH, LOOKBACK, HORIZON, CHANNELS = 32, 512, 96, 7
#: Updates that are timed, one by one, for each repeat.
UPDATES = 200


def run(repeats: int, report: Callable[[str], None]) -> list[Row]:
    """Training steps, then updates of streams (one thread)."""
    return [*_training(repeats, report), *_streams(repeats, report)]


def _training(repeats: int, report: Callable[[str], None]) -> list[Row]:
    case = f"training step, lookback {LOOKBACK}, horizon {HORIZON}, batch {BATCH} x {CHANNELS} channels, float32"
    size = {"lookback": LOOKBACK, "horizon": HORIZON, "variates": CHANNELS, "dropout": 0.2, "head_dropout": 0.2}
    contestants: dict[str, Callable[[], nn.Module]] = {
        "longscan MambaForecaster, causal": lambda: longscan.create_model(
            "mamba_patch_forecaster", d_model=128, n_layers=3, mixer="mamba", **size
        ),
        "longscan MambaForecaster, both ways": lambda: longscan.create_model(
            "mamba_patch_forecaster", d_model=128, n_layers=2, **size
        ),
        "PatchTST, stride 8 (as published)": lambda: PatchTST(LOOKBACK, HORIZON),
        "PatchTST, stride 16 (as many tokens)": lambda: PatchTST(LOOKBACK, HORIZON, stride=16, layers=6),
    }
    rows = []
    for name, make in contestants.items():
        report(f"{case}: {name}")
        torch.manual_seed(0)
        model = make()
        count = sum(parameter.numel() for parameter in model.parameters())
        rows.append(Row(NAME, case, name, measure(_step(model), repeats), f"{count:,} parameters"))
    return rows


def _step(model: nn.Module) -> Callable[[], None]:
    """Return a forward and backward pass with an update of the weights."""
    past, target = torch.randn(BATCH, LOOKBACK, CHANNELS), torch.randn(BATCH, HORIZON, CHANNELS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def loss() -> Tensor:
        if isinstance(model, PatchTST):
            return (model(past) - target).square().mean()
        assert callable(model.loss)
        return model.loss(past, target)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def _streams(repeats: int, report: Callable[[str], None]) -> list[Row]:
    case = "one update of a stream, 4 layers of width 64, one thread"
    kinds = {
        "longscan Mamba, points": {"mixer": "mamba"},
        "longscan Mamba, deciles": {"mixer": "mamba", "head": "quantiles"},
        "longscan Mamba with MLPs, points": {"mixer": "mamba", "channel_mixer": "gated_mlp"},
        "longscan S4D, points": {"mixer": "s4d"},
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for name, options in kinds.items():
            report(f"{case}: {name}")
            torch.manual_seed(0)
            model = longscan.create_model(
                "mamba_forecaster", lookback=96, horizon=24, d_model=64, n_layers=4, **options
            )
            stream, value = ForecastStream(model, torch.randn(1, 96, 1)), torch.randn(1)  # type: ignore[arg-type]
            found = measure(partial(stream.update, value), repeats * UPDATES, warm_up=50)
            rows.append(Row(NAME, case, name, found, f"{1e3 * found.best:.2f} ms, median {1e3 * found.median:.2f} ms"))
    finally:
        torch.set_num_threads(threads)
    return rows
