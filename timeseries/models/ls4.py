"""LS4: a latent state space model that generates, forecasts and fills series (Zhou et al. 2023, arXiv:2212.12749)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.registry import ModelEntry, register_architecture, register_model
from .base import Forecaster, ForecasterConfig, ForecastInputs
from .continuous import ContinuousStack
from .heads import HeadKind
from .prediction import BatchForecast, Prediction
from .scaling import Scale, known_mask

_LOG_STD = (-7.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class LS4Config(ForecasterConfig):
    """Dimensions of an :class:`LS4`."""

    variates: int | None = 1
    """Number of variates, which share one latent series."""
    head: HeadKind = "samples"
    """Always samples, drawn from the model."""
    z_dim: int = 5
    """Latent variables at each instant."""
    d_model: int = 64
    """Width."""
    d_state: int = 16
    """Size of the state of each channel."""
    n_layers: int = 4
    """Blocks in prior, decoder and encoder."""
    noise: float = 0.1
    """Standard deviation of observations, in scaled units."""
    bidirectional: bool = False
    """Let the encoder see later observations too: better for filling gaps, no use for forecasts."""
    dropout: float = 0.0
    """In the blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("z_dim", "d_model", "d_state", "n_layers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.head != "samples":
            raise UserError(f"head={self.head!r}: LS4 draws samples; leave head='samples'")
        if self.variates is None:
            raise UserError("LS4 models the variates together; give variates")
        if not self.noise > 0:
            raise UserError(f"noise={self.noise} must be positive")
        if self.past_covariates or self.future_covariates or self.static_covariates:
            raise UserError("LS4 reads no covariates; leave their numbers 0")


@register_architecture("LS4", LS4Config)
class LS4(Forecaster):
    """A sequential variational autoencoder of causal state space stacks in continuous time::

        prior      z_t ~ N(μ, σ) of stack(z_0 … z_{t-1})          z_0 learned
        decoder    x_t ~ N(stack(z_1 … z_t), noise)
        encoder    z_t ~ N(μ, σ) of stack(x_1 … x_t, observed)    (and a second one backwards)

    ``loss`` is the mean over instants of KL(encoder ‖ prior), over those with an observation, plus the mean Gaussian
    negative log likelihood of the observations. All stacks are told how much time passed before each instant, so that
    sampling may be irregular (``times``). The stacks are isotropic; the published ones pool. Forecasts are drawn: the
    history is encoded, the prior run on, and decoded.

    Args:
        config: dimensions.
    """

    architecture = "LS4"
    config: LS4Config

    def __init__(self, config: LS4Config) -> None:
        super().__init__(config)
        assert config.variates is not None
        sizes = (config.d_model, config.d_state, config.n_layers, config.dropout)
        self.start = nn.Parameter(torch.zeros(config.z_dim))
        self.prior = ContinuousStack(config.z_dim, 2 * config.z_dim, *sizes)
        self.decoder = ContinuousStack(config.z_dim, config.variates, *sizes)
        self.encoder = ContinuousStack(2 * config.variates, 2 * config.z_dim, *sizes)
        self.backward_encoder = (
            ContinuousStack(2 * config.variates, 2 * config.z_dim, *sizes) if config.bidirectional else None
        )

    @property
    def any_horizon(self) -> bool:
        """The prior runs on for as long as is wanted."""
        return True

    @property
    def any_lookback(self) -> bool:
        """The encoder reads histories of any length."""
        return True

    def encode(self, values: Tensor, observed: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latent variables, each (batch, time, z_dim).

        Args:
            values: (batch, time, variates), scaled; ignored where not observed.
            observed: bool of that shape.
            steps: (batch, time) since the instant before.
        """
        inputs = torch.cat([torch.where(observed, values, 0.0), observed.float()], -1)
        raw = self.encoder(inputs, steps)[0]
        if self.backward_encoder is not None:
            # Backwards, the time that passed is that to the next instant.
            turned = torch.cat([steps[:, 1:], torch.ones_like(steps[:, :1])], 1).flip(1)
            raw = raw + self.backward_encoder(inputs.flip(1), turned)[0].flip(1)
        return _gaussian(raw)

    def elbo(self, values: Tensor, observed: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return KL and negative log likelihood as in the class's description, with one draw of the latent series.

        Args:
            values, observed, steps: as in ``encode``.
        """
        mean, deviation = self.encode(values, observed, steps)
        z = mean + deviation * torch.randn_like(mean)
        before = torch.cat([self.start.expand(len(z), 1, -1), z[:, :-1]], 1)
        prior_mean, prior_deviation = _gaussian(self.prior(before, steps)[0])
        ratio = (deviation / prior_deviation).square()
        shift = ((mean - prior_mean) / prior_deviation).square()
        divergence = 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)
        error = (self.decoder(z, steps)[0] - values) / self.config.noise
        negative = 0.5 * error.square() + math.log(self.config.noise) + 0.5 * math.log(2 * math.pi)
        instants = observed.any(-1)
        divergence = torch.where(instants, divergence, 0.0).sum() / instants.sum().clamp(min=1)
        return divergence, torch.where(observed, negative, 0.0).sum() / observed.sum().clamp(min=1)

    def loss(
        self,
        past: Tensor,
        target: Tensor,
        observed: Tensor | None = None,
        target_observed: Tensor | None = None,
        past_covariates: Tensor | None = None,
        future_covariates: Tensor | None = None,
        static: Tensor | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        """Return KL + negative log likelihood of past and target together, scaled by the past alone.

        Args:
            past, target, observed, target_observed: as in :meth:`Forecaster.loss`.
            past_covariates, future_covariates, static: None.
            times: (batch, lookback + horizon) rising instants, in steps of the training data; None is regular.
        """
        known_past = known_mask(past, observed)
        scale = self.scaling.measure(torch.where(known_past, past, 0.0), known_past)
        known = torch.cat([known_past, known_mask(target, target_observed)], 1)
        whole = torch.where(known, torch.cat([past, target], 1), scale.location.to(past.dtype))
        divergence, negative = self.elbo(self.scaling.apply(whole, scale), known, _steps(times, whole))
        return divergence + negative

    def draw(
        self, inputs: ForecastInputs, steps: Tensor, ahead: Tensor, count: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return scaled sample paths (count, batch, horizon, variates).

        Args:
            inputs: what was observed.
            steps: (batch, time) since the instant before.
            ahead: (batch, horizon), likewise.
            count: number of paths.
            generator: of the draws.
        """
        mean, deviation = (part.repeat(count, 1, 1) for part in self.encode(inputs.values, inputs.observed, steps))
        steps, ahead = steps.repeat(count, 1), ahead.repeat(count, 1)

        def noise(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=generator, device=like.device)

        z = mean + deviation * noise(mean)
        before = torch.cat([self.start.expand(len(z), 1, -1), z[:, :-1]], 1)
        _, prior_state = self.prior(before, steps)
        _, decoder_state = self.decoder(z, steps)
        last, latent = z[:, -1:], []
        for t in range(ahead.shape[1]):  # each draw feeds the next: sequential by nature
            raw, prior_state = self.prior(last, ahead[:, t : t + 1], prior_state)
            center, spread = _gaussian(raw)
            last = center + spread * noise(center)
            latent.append(last)
        paths = self.decoder(torch.cat(latent, 1), ahead, decoder_state)[0]
        return (paths + self.config.noise * noise(paths)).unflatten(0, (count, -1))

    def network(self, inputs: ForecastInputs, horizon: int) -> Tensor:
        """See :meth:`Forecaster.network`: the raw numbers are sample paths."""
        batch, time, _ = inputs.values.shape
        ones = inputs.values.new_ones(batch, time + horizon)
        return self.draw(inputs, ones[:, :time], ones[:, time:], self.config.samples).permute(1, 2, 3, 0)

    def prediction(self, raw: Tensor, scale: Scale) -> Prediction:
        """Make a distribution of sample paths (batch, horizon, variates, samples)."""
        return Prediction(self.head, {"samples": raw.float()}, scale, self.scaling.std)

    @torch.no_grad()
    def predict_irregular(
        self,
        past: Tensor,
        times: Tensor,
        future_times: Tensor,
        observed: Tensor | None = None,
        levels: Sequence[float] = (),
        generator: torch.Generator | None = None,
    ) -> BatchForecast:
        """Forecast at any instants after the history; ``samples`` of the result are coherent paths.

        Args:
            past: (batch, time, variates) in units of the data, NaN where missing.
            times: (batch, time) rising, in steps of the training data.
            future_times: (batch, horizon) rising, after ``times``.
            observed: bool (batch, time, variates), False where missing.
            levels: of the quantiles wanted.
            generator: of the draws.

        Raises:
            UserError: instants that do not rise.
        """
        training = self.training
        self.eval()
        try:
            inputs, scale = self.inputs(past, observed, None, None, None, 1)
            both = _steps(torch.cat([times, future_times], 1), past)
            count = past.shape[1]
            paths = self.draw(inputs, both[:, :count], both[:, count:], self.config.samples, generator)
        finally:
            self.train(training)
        forecast = self.prediction(paths.permute(1, 2, 3, 0), scale).forecast(levels)
        return forecast._replace(samples=self.head.to_data(paths, scale))

    @torch.no_grad()
    def reconstruct(self, past: Tensor, observed: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """Fill a series: the decoder's mean at the encoder's mean, (batch, time, variates) in units of the data."""
        training = self.training
        self.eval()
        try:
            inputs, scale = self.inputs(past, observed, None, None, None, 1)
            steps = _steps(times, past)
            values = self.decoder(self.encode(inputs.values, inputs.observed, steps)[0], steps)[0]
        finally:
            self.train(training)
        return self.head.to_data(values, scale)

    @torch.no_grad()
    def generate(self, count: int, length: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``count`` series from nothing: (count, length, variates), in scaled units."""
        training = self.training
        self.eval()
        try:
            last = self.start.expand(count, 1, -1)
            one, state, latent = last.new_ones(count, 1), None, []
            for _ in range(length):
                raw, state = self.prior(last, one, state)
                center, spread = _gaussian(raw)
                last = center + spread * torch.randn(center.shape, generator=generator, device=center.device)
                latent.append(last)
            paths = self.decoder(torch.cat(latent, 1), one.expand(-1, length))[0]
        finally:
            self.train(training)
        return paths + self.config.noise * torch.randn(paths.shape, generator=generator, device=paths.device)


def _gaussian(raw: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_deviation = raw.chunk(2, -1)
    return mean, log_deviation.clamp(*_LOG_STD).exp()


def _steps(times: Tensor | None, like: Tensor) -> Tensor:
    """Return the time since the instant before, 1 at the first, float32 (batch, time)."""
    if times is None:
        return torch.ones(like.shape[:2], device=like.device)
    steps = torch.diff(times.double(), dim=1)
    if times.dim() != 2 or not bool((steps >= 0).all()):
        raise UserError("times must be (batch, time) and rise along time; sort the observations")
    return torch.cat([torch.ones_like(steps[:, :1]), steps], 1).float()


register_model(
    ModelEntry(
        name="ls4",
        domain="timeseries",
        config=LS4Config,
        architecture="LS4",
        description="latent state space model: generates, forecasts and fills, at irregular instants too",
    )
)
