"""A forecaster of series that it has never seen, after TempoPFN (arXiv:2510.25502) and TiRex (arXiv:2505.23719)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.backbone import Backbone, BackboneConfig
from ...core.errors import UserError
from ...core.registry import ModelEntry, register_architecture, register_model
from .base import Forecaster, ForecasterConfig, ForecastInputs
from .heads import HeadKind
from .period_search import find_periods, last_period, one_period_before

_LAGS = 3
#: Of each step: value, whether it was observed, the values one period earlier.
_COLUMNS = 2 + _LAGS
#: What a forecast may start from: mean, last value, last period at each lag, mean of the last cycles of two lags.
_ANCHORS = 2 + _LAGS + 2
_CYCLES = 4


@dataclass(frozen=True, kw_only=True)
class ZeroShotForecasterConfig(ForecasterConfig):
    """Dimensions of a :class:`ZeroShotForecaster`."""

    lookback: int = 1008
    """Steps read at most; shorter histories are padded in front."""
    horizon: int = 96
    """Steps of a training window at most; forecasts may be longer."""
    head: HeadKind = "quantiles"
    """See :class:`ForecasterConfig`."""
    loss_units: Any = "window"
    """See :class:`ForecasterConfig`."""
    d_model: int = 192
    """Width."""
    n_layers: int = 4
    """Blocks, each a mixer and a channel mixer."""
    mixer: Any = "gated_delta_product"
    """Name of a mixer, or a mapping of its name and options."""
    channel_mixer: Any = "gated_mlp"
    """Name of a channel mixer, or a mapping of its name and options."""
    patch: int = 12
    """Steps in one token: a divisor of days, weeks and years of common frequencies."""
    weave: bool = True
    """Start each layer's memory from where the layer before ended, so that early tokens know of later ones."""
    dropout: float = 0.0
    """In the blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("d_model", "n_layers", "patch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.past_covariates or self.future_covariates or self.static_covariates:
            raise UserError("a zero-shot forecaster reads series alone; leave covariates out")


class Clues(NamedTuple):
    """What can be read off a series before any network, scaled."""

    lagged: Tensor
    """(series, time, lags): the value one period earlier, 0 before the series begins."""
    ahead: Tensor
    """(series, horizon, lags): the last period, repeated."""
    anchors: Tensor
    """(series, horizon, anchors)."""
    summary: Tensor
    """(series, features): periods, their strengths, errors of the anchors in the past."""


@register_architecture("ZeroShotForecaster", ZeroShotForecasterConfig)
class ZeroShotForecaster(Forecaster):
    """Reads one series at a time, scaled, in patches; patches without values follow for the steps to come::

        periods  = find_periods(history)                       three candidates, found anew in every series
        token    = MLP(values, observed, values one period before) + linear(summary of the series)
        features = blocks(tokens)                               each starts from the memory that the last one ended with
        anchor   = softmax(linear(feature)) · (mean, last value, last periods, means of the last cycles)
        output   = head(linear(feature), anchor added to the centre)

    So it starts at a mean of naive forecasts, and learns which of them to believe, what to change about them, and how
    far to trust the result. The tokens to come get the last periods in place of values. Channels are series by
    themselves.

    Args:
        config: dimensions.
    """

    architecture = "ZeroShotForecaster"
    config: ZeroShotForecasterConfig

    def __init__(self, config: ZeroShotForecasterConfig) -> None:
        super().__init__(config)
        d_model, patch = config.d_model, config.patch
        layer = {"mixer": config.mixer, "channel_mixer": config.channel_mixer}
        self.backbone = Backbone(
            BackboneConfig(d_model=d_model, layers=[layer], repeat=config.n_layers, dropout=config.dropout)
        )
        if config.weave and not all(hasattr(block.mixer, "delta_state") for block in self.backbone.blocks()):
            raise UserError("weave needs the mixer gated_delta_product; set weave to False")
        self.embed = ResidualMLP(patch * _COLUMNS + 2, d_model)
        self.summarise = nn.Linear(3 * _LAGS + 2, d_model)
        self.output = ResidualMLP(d_model, patch * (self.head.size + _ANCHORS))
        with torch.no_grad():
            for linear in (self.output.direct, self.output.last):
                linear.weight.mul_(0.1)
                nn.init.zeros_(linear.bias)

    @property
    def any_horizon(self) -> bool:
        """It does: patches without values follow as long as asked for."""
        return True

    @property
    def any_lookback(self) -> bool:
        """It does."""
        return True

    def network(self, inputs: ForecastInputs, horizon: int) -> Tensor:
        """See :meth:`Forecaster.network`."""
        variates, patch = inputs.values.shape[2], self.config.patch
        observed = inputs.observed.transpose(1, 2).flatten(0, 1)
        begun = observed.int().cummax(1).values > 0
        values = torch.where(begun, inputs.values.transpose(1, 2).flatten(0, 1), 0.0)
        missing, whole = -values.shape[1] % patch, -(-horizon // patch) * patch
        if missing:
            values, observed, begun = (F.pad(part, (missing, 0)) for part in (values, observed, begun))
        clues = read_clues(values, observed, begun, whole)
        tokens = self._tokens(values, observed, clues, whole) + self.summarise(clues.summary).unsqueeze(1)
        features = self._mix(tokens)[:, -(whole // patch) :]
        raw = self.output(features).unflatten(-1, (patch, -1)).flatten(1, 2).float()
        raw, weights = raw.split([self.head.size, _ANCHORS], -1)
        anchor = (weights.softmax(-1) * clues.anchors).sum(-1, keepdim=True)
        raw = raw + anchor * self.head.centre.to(raw)
        return raw[:, :horizon].unflatten(0, (-1, variates)).transpose(1, 2)

    def _tokens(self, values: Tensor, observed: Tensor, clues: Clues, whole: int) -> Tensor:
        """Return the tokens of history and future, (series, tokens, d_model)."""
        patch = self.config.patch
        past = torch.cat([values.unsqueeze(-1), observed.unsqueeze(-1).float(), clues.lagged], -1)
        future = F.pad(clues.ahead, (2, 0))
        steps = torch.cat([past, future], 1).unflatten(1, (-1, patch)).flatten(2)
        count, history = steps.shape[1], values.shape[1] // patch
        place = torch.arange(count, device=values.device) - history
        is_future = (place >= 0).float()
        # How far ahead, in a measure that grows ever more slowly.
        further = torch.log1p(place.clamp(min=0).float()) / 3
        extra = torch.stack([is_future, further], -1).expand(len(values), -1, -1)
        return self.embed(torch.cat([steps, extra], -1))

    def _mix(self, tokens: Tensor) -> Tensor:
        if not self.config.weave:
            return self.backbone(tokens)
        memory: Tensor | None = None
        x, branch = self.backbone.stream(tokens), None
        for block in self.backbone.blocks():
            mixer: Any = block.mixer
            state = mixer.delta_state(len(tokens), tokens, memory)
            x, branch, after = block.extend_prefill(x, branch, state)
            memory = after.memory
        assert branch is not None
        return self.backbone.final_norm(x, branch, dtype=torch.promote_types(x.dtype, branch.dtype))[0]


class ResidualMLP(nn.Module):
    """A linear map, and beside it one hidden layer of SiLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = max(inputs, outputs)
        self.direct = nn.Linear(inputs, outputs)
        self.first = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        return self.direct(x) + self.last(F.silu(self.first(x)))


@torch.no_grad()
def read_clues(values: Tensor, observed: Tensor, begun: Tensor, horizon: int) -> Clues:
    """Find the periods of series and what they say of the future.

    Args:
        values: (series, time), scaled, without gaps, 0 before a series begins.
        observed: bool of that shape.
        begun: bool of that shape, False before a series begins.
        horizon: steps.
    """
    periods = find_periods(values, observed)
    rows = begun.sum(1).clamp(min=1)
    known = observed.float()
    lagged, ahead, errors = [], [], []
    for index in range(_LAGS):
        period = periods.steps[:, index]
        before = one_period_before(values, period)
        there = one_period_before(begun.float(), period) * known
        lagged.append(before * one_period_before(begun.float(), period))
        ahead.append(last_period(values, period, horizon))
        errors.append(((values - before).abs() * there).sum(1) / there.sum(1).clamp(min=1))
    moved = known[:, 1:] * known[:, :-1]
    errors.append(((values[:, 1:] - values[:, :-1]).abs() * moved).sum(1) / moved.sum(1).clamp(min=1))
    mean = (values * known).sum(1) / known.sum(1).clamp(min=1)
    last = values[:, -1]
    means = [_mean_cycle(values, periods.steps[:, index], rows, horizon) for index in (0, 2)]
    flat = [mean[:, None].expand(-1, horizon), last[:, None].expand(-1, horizon)]
    summary = torch.cat(
        [
            periods.steps.float().log() / 5,
            periods.strength,
            (torch.stack(errors, 1) + 1e-3).log() / 3,
            (rows.float().log() / 5).unsqueeze(1),
        ],
        1,
    )
    return Clues(torch.stack(lagged, -1), torch.stack(ahead, -1), torch.stack([*flat, *ahead, *means], -1), summary)


def _mean_cycle(values: Tensor, period: Tensor, rows: Tensor, horizon: int) -> Tensor:
    """Return the mean of the last four periods (of as many as there are), repeated over the horizon."""
    total = torch.zeros(len(values), horizon, device=values.device)
    number = total[:, :1]
    for back in range(1, _CYCLES + 1):
        there = ((back * period <= rows) | (back == 1)).float()[:, None]
        total = total + there * last_period(values, period, horizon, back)
        number = number + there
    return total / number


register_model(
    ModelEntry(
        name="zero_shot_forecaster",
        domain="timeseries",
        config=ZeroShotForecasterConfig,
        architecture="ZeroShotForecaster",
        description="gated delta product over patches of 12 steps, for series never seen (timeseries/zero_shot)",
    )
)
