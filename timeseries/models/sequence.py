"""Forecasters on an isotropic stack of any mixers: one series at a time, in patches or single steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.backbone import Backbone, BackboneConfig
from ...core.errors import UserError, nearest
from ...core.registry import register_architecture
from .base import Forecaster, ForecasterConfig, ForecastInputs
from .cycle import Cycle
from .fused_steps import Step
from .prediction import Prediction
from .scaling import Scale

Decoder = Literal["flatten", "last", "rollout"]


@dataclass(frozen=True, kw_only=True)
class SequenceForecasterConfig(ForecasterConfig):
    """Dimensions of a :class:`SequenceForecaster`."""

    d_model: int = 64
    """Width."""
    n_layers: int = 2
    """Blocks, each a mixer and (unless None) a channel mixer."""
    mixer: Any = "mamba"
    """Name of a mixer, or a mapping of its name and options; ``{"name": "bidirectional", "mixer": "mamba"}``, say."""
    channel_mixer: Any = None
    """Name of a channel mixer, or a mapping of its name and options."""
    layers: list[Any] | None = field(default=None)
    """In place of the two above: a pattern as in ``BackboneConfig.layers``, repeated ``n_layers`` times."""
    patch: int = 1
    """Steps in one token; 1 is pointwise."""
    decoder: Decoder = "last"
    """``flatten``: one linear map of all tokens to all steps (a lookback of fixed length). ``last``: one of the last
    token. ``rollout``: tokens without values follow, each is mapped to its own steps; any horizon, and covariates of
    the future."""
    linear_skip: bool = False
    """Add a linear map of the window less its last value, as NLinear, to the centre of the distribution (``flatten``
    alone)."""
    variate_embedding: bool = False
    """A learned vector for each variate; needs ``variates``."""
    cycle: int = 0
    """Positions of a learned cycle of each variate (24 for the hours of a day), which is subtracted from what is read
    and added to the forecast; see :class:`longscan.timeseries.models.cycle.Cycle`. 0 for none."""
    cycle_column: int = 0
    """The column of the covariates of the future, a calendar feature, that tells the position."""
    dropout: float = 0.0
    """In the blocks."""
    head_dropout: float = 0.0
    """Before the output map."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Norm before each mixer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder not in get_args(Decoder):
            raise UserError(f"decoder={self.decoder!r} is unknown; {nearest(self.decoder, get_args(Decoder))}")
        for name in ("d_model", "n_layers", "patch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.linear_skip and self.decoder != "flatten":
            raise UserError("linear_skip reads a window of fixed length; it needs decoder='flatten'")
        if self.variate_embedding and self.variates is None:
            raise UserError("variate_embedding needs the number of variates; give variates")
        if self.cycle < 0 or self.cycle == 1:
            raise UserError(f"cycle={self.cycle} must be 0 (none) or at least 2 positions")
        if self.cycle and not 0 <= self.cycle_column < self.future_covariates:
            raise UserError(
                f"cycle={self.cycle} is read off column {self.cycle_column} of {self.future_covariates} covariates of "
                "the future; give calendar features (data.calendar)"
            )


class SequenceStreamState(NamedTuple):
    """What a stream carries from step to step; tensors and integers alone."""

    blocks: list[Any]
    """The mixers' states, of (batch · variates) sequences."""
    scale: Scale
    """What the stream is scaled with."""
    latest: Tensor
    """(batch · variates,): the last observed value, scaled; 0 before there was one."""
    tokens: Tensor
    """(batch · variates, patch, columns): the steps of the token that is being filled."""
    filled: int
    """How many of them are there."""
    feature: Tensor
    """(batch · variates, d_model): output of the stack at the last whole token; 0 before there was one."""


@register_architecture("SequenceForecaster", SequenceForecasterConfig)
class SequenceForecaster(Forecaster):
    """Every variate is a sequence by itself, with the same weights (channel independence, Nie et al. 2023,
    arXiv:2211.14730)::

        token  = linear(values and observed flags of a patch, covariates of the past) (+ static, variate)
        output = linear(stack(tokens))            as ``decoder`` says

    A history whose length is no multiple of ``patch`` is padded in front. Values before the first observed one are 0 in
    scaled units, later gaps repeat the last observed value, and flags tell them apart.

    Args:
        config: dimensions.
    """

    architecture = "SequenceForecaster"
    config: SequenceForecasterConfig

    def __init__(self, config: SequenceForecasterConfig) -> None:
        super().__init__(config)
        d_model, size, patch = config.d_model, self.head.size, config.patch
        layers = config.layers or [{"mixer": config.mixer, "channel_mixer": config.channel_mixer}]
        self.backbone = Backbone(
            BackboneConfig(
                d_model=d_model, layers=list(layers), repeat=config.n_layers, dropout=config.dropout, norm=config.norm
            )
        )
        self.embed = nn.Linear(patch * (2 + config.past_covariates), d_model)
        self.static_embed = nn.Linear(config.static_covariates, d_model) if config.static_covariates else None
        self.variate_embed = (
            nn.Parameter(0.02 * torch.randn(config.variates or 1, d_model)) if config.variate_embedding else None
        )
        self.drop = nn.Dropout(config.head_dropout)
        tokens = -(-config.lookback // patch)
        inputs = d_model * tokens if config.decoder == "flatten" else d_model
        self.output = nn.Linear(inputs, size * (patch if config.decoder == "rollout" else config.horizon))
        self.future_token = nn.Parameter(0.02 * torch.randn(d_model)) if config.decoder == "rollout" else None
        self.future_embed = None
        if config.future_covariates:
            steps = patch if config.decoder == "rollout" else config.horizon
            self.future_embed = nn.Linear(steps * config.future_covariates, d_model)
        self.skip = nn.Linear(config.lookback, config.horizon) if config.linear_skip else None
        self.cycle = Cycle(config.cycle, config.variates) if config.cycle else None
        self._start_small()

    @torch.no_grad()
    def _start_small(self) -> None:
        """Begin near the window's mean (its last value, with the skip), wherever the features point."""
        self.output.weight.mul_(0.1)
        nn.init.zeros_(self.output.bias)
        if self.skip is not None:
            nn.init.constant_(self.skip.weight, 1 / self.config.lookback)
            nn.init.zeros_(self.skip.bias)

    @property
    def any_horizon(self) -> bool:
        """Whether the decoder is recurrent."""
        return self.config.decoder == "rollout"

    @property
    def any_lookback(self) -> bool:
        """Whether the decoder leaves the length of the history open."""
        return self.config.decoder != "flatten"

    @property
    def streams(self) -> bool:
        """Whether mixers and decoder allow updates."""
        return self.backbone.causal and self.config.decoder != "flatten" and self.cycle is None

    def inputs(
        self,
        past: Tensor,
        observed: Tensor | None,
        past_covariates: Tensor | None,
        future_covariates: Tensor | None,
        static: Tensor | None,
        horizon: int,
        scale: Scale | None = None,
    ) -> tuple[ForecastInputs, Scale]:
        """See :meth:`Forecaster.inputs`; with a cycle, what is read is less it, and the scale's location has the axis
        of the horizon."""
        if self.cycle is None:
            return super().inputs(past, observed, past_covariates, future_covariates, static, horizon, scale)
        self._check_past(past)
        self.covariates(past, past_covariates, future_covariates, static, horizon)
        assert past_covariates is not None
        assert future_covariates is not None
        # Covariates of the future come last among those of the past, too.
        column = past_covariates.shape[-1] - future_covariates.shape[-1] + self.config.cycle_column
        past = past - self.cycle(past_covariates[..., column]) * self.scaling.std
        found, scale = super().inputs(past, observed, past_covariates, future_covariates, static, horizon, scale)
        ahead = self.cycle(future_covariates[..., self.config.cycle_column]) * self.scaling.std
        return found, scale._replace(location=scale.location + ahead)

    def network(self, inputs: ForecastInputs, horizon: int) -> Tensor:
        """See :meth:`Forecaster.network`."""
        variates = inputs.values.shape[2]
        tokens = self.embed(self._patches(inputs))
        shift = self._shift(inputs.static, inputs.values.shape[0], variates)
        if shift is not None:
            tokens = tokens + shift.unsqueeze(1)
        if self.future_token is not None:
            raw = self._rollout(tokens, shift, inputs.future, horizon, variates)
        else:
            features = self.backbone(tokens)
            raw = self._direct(features.flatten(1) if self.config.decoder == "flatten" else features[:, -1], inputs)
        raw = raw.unflatten(0, (-1, variates)).transpose(1, 2)[:, :horizon]
        if self.skip is not None:
            last = inputs.values[:, -1:]
            line = self.skip((inputs.values - last).transpose(1, 2)).transpose(1, 2) + last
            raw = raw + line[:, :horizon].unsqueeze(-1) * self.head.centre.to(raw)
        return raw

    def _patches(self, inputs: ForecastInputs) -> Tensor:
        """Return the numbers of each token, (batch · variates, tokens, patch · columns)."""
        steps = self._steps(inputs)
        missing = -steps.shape[1] % self.config.patch
        steps = F.pad(steps, (0, 0, missing, 0)) if missing else steps
        return steps.unflatten(1, (-1, self.config.patch)).flatten(2)

    def _steps(self, inputs: ForecastInputs) -> Tensor:
        """Return the numbers of each step, (batch · variates, time, columns)."""
        started = inputs.observed.int().cummax(1).values
        columns = [torch.where(started > 0, inputs.values, 0.0), inputs.observed.float()]
        steps = torch.stack([column.transpose(1, 2).flatten(0, 1) for column in columns], -1)
        if inputs.past.shape[-1]:
            steps = torch.cat([steps, inputs.past.repeat_interleave(inputs.values.shape[2], 0)], -1)
        return steps

    def _shift(self, static: Tensor, batch: int, variates: int) -> Tensor | None:
        """Return what is added to every token of a sequence, (batch · variates, d_model)."""
        shift = None
        if self.static_embed is not None:
            shift = self.static_embed(static).repeat_interleave(variates, 0)
        if self.variate_embed is not None:
            own = self.variate_embed.repeat(batch, 1)
            shift = own if shift is None else shift + own
        return shift

    def _direct(self, features: Tensor, inputs: ForecastInputs) -> Tensor:
        """Map features of whole windows to (batch · variates, horizon, size)."""
        if self.future_embed is not None:
            future = self.future_embed(F.pad(inputs.future, self._missing_steps(inputs.future)).flatten(1))
            future = future.repeat_interleave(inputs.values.shape[2], 0)
            features = features + future.repeat(1, features.shape[1] // future.shape[1])
        return self.output(self.drop(features)).unflatten(-1, (self.config.horizon, self.head.size))

    def _missing_steps(self, future: Tensor) -> tuple[int, ...]:
        return 0, 0, 0, self.config.horizon - future.shape[1]

    def _future_tokens(self, shift: Tensor | None, future: Tensor, horizon: int, rows: int) -> Tensor:
        """Return tokens without values for the steps to come, (batch · variates, tokens, d_model)."""
        assert self.future_token is not None
        count = -(-horizon // self.config.patch)
        tokens = self.future_token.expand(rows, count, -1)
        if self.future_embed is not None:
            future = F.pad(future, (0, 0, 0, count * self.config.patch - horizon))
            known = self.future_embed(future.unflatten(1, (count, -1)).flatten(2))
            tokens = tokens + known.repeat_interleave(rows // len(future), 0)
        return tokens if shift is None else tokens + shift.unsqueeze(1)

    def _rollout(self, tokens: Tensor, shift: Tensor | None, future: Tensor, horizon: int, variates: int) -> Tensor:
        ahead = self._future_tokens(shift, future, horizon, len(tokens))
        features = self.backbone(torch.cat([tokens, ahead], 1))[:, tokens.shape[1] :]
        return self._steps_of(features)

    def _steps_of(self, features: Tensor) -> Tensor:
        """Map features of future tokens to (batch · variates, steps, size)."""
        return self.output(self.drop(features)).unflatten(-1, (self.config.patch, self.head.size)).flatten(1, 2)

    # ---- streaming ------------------------------------------------------------------------------------------------

    def init_state(
        self, batch_size: int = 1, variates: int | None = None, scale: Scale | None = None
    ) -> SequenceStreamState:
        """Return the state of ``batch_size`` streams that have read nothing.

        Args:
            batch_size: number of streams.
            variates: of each; that of the configuration (else 1) where None.
            scale: what to scale with; needed where the scaling is that of a window.

        Raises:
            UserError: a model that cannot stream, or a missing scale.
        """
        if not self.streams:
            raise self._no_stream()
        config, variates = self.config, variates or self.config.variates or 1
        if config.patch > config.horizon:
            raise UserError(f"patch={config.patch} is longer than horizon={config.horizon}; a stream would run dry")
        device = self.output.weight.device
        if scale is None:
            if not self.scaling.constant:
                raise UserError(f"scaling={config.scaling!r} is a window's; give the stream a history to begin with")
            blank = torch.zeros(batch_size, 1, variates, device=device)
            scale = self.scaling.measure(blank, blank.bool())
        rows = batch_size * variates
        return SequenceStreamState(
            self.backbone.init_state(rows),
            scale,
            torch.zeros(rows, device=device),
            torch.zeros(rows, config.patch, 2 + config.past_covariates, device=device),
            0,
            torch.zeros(rows, config.d_model, device=device),
        )

    def read_history(
        self,
        past: Tensor,
        observed: Tensor | None = None,
        past_covariates: Tensor | None = None,
        static: Tensor | None = None,
        scale: Scale | None = None,
    ) -> SequenceStreamState:
        """Return the state after a history; see :meth:`Forecaster.read_history`. One parallel pass."""
        batch, steps, variates = past.shape
        future = past.new_zeros(batch, 1, self.config.future_covariates)
        inputs, scale = self.inputs(past, observed, past_covariates, future, static, 1, scale)
        state = self.init_state(batch, variates, scale)
        whole = steps - steps % self.config.patch
        rows = self._steps(inputs)
        feature, blocks = state.feature, state.blocks
        if whole:
            tokens = self.embed(rows[:, :whole].unflatten(1, (-1, self.config.patch)).flatten(2))
            shift = self._shift(inputs.static, batch, variates)
            features, blocks = self.backbone.prefill(tokens if shift is None else tokens + shift.unsqueeze(1))
            feature = features[:, -1]
        kept = torch.cat([state.tokens, rows], 1)[:, -self.config.patch :]
        return SequenceStreamState(blocks, scale, rows[:, -1, 0], kept, steps - whole, feature)

    def update(
        self,
        y_t: Tensor,
        state: SequenceStreamState,
        covariates_t: Tensor | None = None,
        static: Tensor | None = None,
        future_covariates: Tensor | None = None,
        horizon: int | None = None,
        step: Step | None = None,
    ) -> tuple[Prediction, SequenceStreamState]:
        """Read one step and return the forecast after it, and the new state; constant time and memory.

        With patches, the stack moves on when a patch is whole; in between the forecast is that of the last whole patch
        less the steps that have passed. Tensors of ``state`` may be overwritten; see :func:`clone_state`.

        Args:
            y_t: (batch, variates) in units of the data, NaN where missing.
            state: of ``init_state`` or an earlier update.
            covariates_t: (batch, past_covariates).
            static: (batch, static_covariates).
            future_covariates: (batch, horizon, future_covariates), from the last whole patch on.
            horizon: steps from the last whole patch on; that of the configuration where None.
            step: in place of the stack's own; see :func:`longscan.timeseries.models.fused_steps.fused_step`.
        """
        batch, variates = y_t.shape
        horizon = self._check_horizon(horizon)
        known = y_t.isfinite()
        scaled = self.scaling.apply(torch.where(known, y_t, 0.0).unsqueeze(1), state.scale).flatten()
        flags = known.flatten()
        latest = torch.where(flags, scaled, state.latest)
        past, future, fixed = self.covariates(
            y_t.unsqueeze(1),
            None if covariates_t is None else covariates_t.unsqueeze(1),
            future_covariates,
            static,
            horizon,
        )
        row = torch.stack([latest, flags.float()], -1)
        if past.shape[-1]:
            row = torch.cat([row, past[:, 0].repeat_interleave(variates, 0)], -1)
        tokens, filled, feature, blocks = state.tokens, state.filled + 1, state.feature, state.blocks
        if self.config.patch == 1:
            tokens = row.unsqueeze(1)
        else:
            tokens = torch.cat([tokens[:, 1:], row.unsqueeze(1)], 1)
        shift = self._shift(fixed, batch, variates)
        if filled == self.config.patch:
            token = self.embed(tokens.flatten(1))
            feature, blocks = (step or self.backbone.step)(token if shift is None else token + shift, blocks)
            filled = 0
        after = SequenceStreamState(blocks, state.scale, latest, tokens, filled, feature)
        if self.future_token is not None:
            features = self.backbone(self._future_tokens(shift, future, horizon, len(tokens)), state=blocks)
            raw = self._steps_of(features)
        else:
            raw = self._direct(feature, ForecastInputs(y_t.unsqueeze(1), known, past, future, fixed))
        raw = raw.unflatten(0, (batch, variates)).transpose(1, 2)[:, filled:horizon]
        return self.prediction(raw, state.scale), after
