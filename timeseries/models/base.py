"""What every forecasting model is: windows in original units in, a distribution of the future in original units out.

A batch of :class:`longscan.timeseries.data.SeriesDataModule` fits as follows::

    model.loss(batch["input_ids"], batch["labels"], batch["observed"], batch["label_mask"],
               past_covariates=batch.get("past_covariates"), future_covariates=batch.get("future_covariates"),
               static=batch.get("static"))
    model.predict(batch["input_ids"], batch["observed"], levels=(0.1, 0.9), ...)      # a BatchForecast
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import UserError, nearest
from ..baselines.linear import fill_forward
from .heads import DECILES, ForecastHead, HeadKind, create_head
from .prediction import BatchForecast, Prediction
from .scaling import Scale, Scaling, ScalingKind, known_mask

LossUnits = Literal["data", "window"]
PointLoss = Literal["mse", "mae", "huber"]


@dataclass(frozen=True, kw_only=True)
class ForecasterConfig:
    """What the configurations of all forecasters share."""

    lookback: int = 96
    """Steps read in training; recurrent models read histories of any length."""
    horizon: int = 24
    """Steps predicted in training."""
    variates: int | None = None
    """Number of variates (channels); None takes any number and treats all alike, where the model allows that."""
    scaling: ScalingKind = "instance"
    """``none``, ``standard`` (of training rows, see ``fit_scaling``), ``instance`` (RevIN) or ``robust``."""
    affine: bool = False
    """A learned scale and shift of each variate after the scaling, undone at the output (RevIN's)."""
    head: HeadKind = "point"
    """``point``, ``quantiles``, ``normal``, ``student_t``, ``negative_binomial`` or ``samples``."""
    quantile_levels: tuple[float, ...] = DECILES
    """Levels that a quantile head is trained for; others are interpolated."""
    samples: int = 32
    """Number of samples of a samples head."""
    point_loss: PointLoss = "mse"
    """Of a point head."""
    loss_units: LossUnits = "data"
    """Loss in units of the data (of the training rows' deviation where ``fit_scaling`` was called), or of each window's
    own scale. ``window`` lets series of different sizes weigh alike, but flat windows weigh most."""
    past_covariates: int = 0
    """Columns of the covariates over the lookback."""
    future_covariates: int = 0
    """Columns of the covariates known over the horizon."""
    static_covariates: int = 0
    """Properties of each series."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantile_levels", tuple(float(level) for level in self.quantile_levels))
        for name in ("lookback", "horizon", "samples"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("past_covariates", "future_covariates", "static_covariates"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must not be negative")
        if self.variates is not None and self.variates < 1:
            raise UserError(f"variates={self.variates} must be at least 1, or None")
        for name, known in (("loss_units", LossUnits), ("point_loss", PointLoss)):
            if getattr(self, name) not in get_args(known):
                raise UserError(
                    f"{name}={getattr(self, name)!r} is unknown; {nearest(getattr(self, name), get_args(known))}"
                )


class ForecastInputs(NamedTuple):
    """What the network of a forecaster reads: scaled, without gaps, float32."""

    values: Tensor
    """(batch, time, variates); where missing, the last observed value (before the first one that, 0 without any)."""
    observed: Tensor
    """bool (batch, time, variates), False where missing or before the series begins."""
    past: Tensor
    """(batch, time, past_covariates), standardised by the training rows; width 0 without any."""
    future: Tensor
    """(batch, horizon, future_covariates), likewise."""
    static: Tensor
    """(batch, static_covariates), likewise."""


class Forecaster(nn.Module):
    """The interface and the parts that all forecasters share: scaling, masks, covariates, head, loss, prediction.

    A model defines ``network``; one that streams also ``init_state`` and ``update`` (see ``streaming.py``).
    Inputs and outputs are in units of the data. What is missing (``observed`` False, or not finite) never reaches the
    network as such, and a forecast is always finite.

    Attributes:
        config: a :class:`ForecasterConfig`.
        architecture: name under which it is registered.
        scaling: a :class:`longscan.timeseries.models.scaling.Scaling`.
        head: a :class:`longscan.timeseries.models.heads.ForecastHead`.
    """

    architecture: str = ""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.scaling = Scaling(config.scaling, config.variates, config.affine)
        self.head: ForecastHead = create_head(config.head, config.quantile_levels, config.samples, config.point_loss)
        widths = {
            "past": config.past_covariates,
            "future": config.future_covariates,
            "static": config.static_covariates,
        }
        self.covariate_scaling = nn.ModuleDict(
            {name: Scaling("standard", width) for name, width in widths.items() if width}
        )

    # ---- what a model defines -------------------------------------------------------------------------------------

    def network(self, inputs: ForecastInputs, horizon: int) -> Tensor:
        """Return raw outputs (batch, horizon, variates, self.head.size), which the head makes parameters of."""
        raise NotImplementedError

    @property
    def any_horizon(self) -> bool:
        """Whether horizons longer than the trained one can be asked for."""
        return False

    @property
    def any_lookback(self) -> bool:
        """Whether the history may have any length; otherwise it is cut or padded in front to the configured one."""
        return False

    @property
    def streams(self) -> bool:
        """Whether ``init_state``, ``read_history`` and ``update`` are available (see ``streaming.py``)."""
        return False

    def init_state(self, batch_size: int = 1, variates: int | None = None, scale: Scale | None = None) -> Any:
        """Return the state of ``batch_size`` streams that have read nothing, scaled with ``scale``."""
        raise self._no_stream()

    def read_history(
        self,
        past: Tensor,
        observed: Tensor | None = None,
        past_covariates: Tensor | None = None,
        static: Tensor | None = None,
        scale: Scale | None = None,
    ) -> Any:
        """Return the state after a history, (batch, time, variates), scaled with its own scale where none is given."""
        raise self._no_stream()

    def update(
        self,
        y_t: Tensor,
        state: Any,
        covariates_t: Tensor | None = None,
        static: Tensor | None = None,
        future_covariates: Tensor | None = None,
        horizon: int | None = None,
    ) -> tuple[Prediction, Any]:
        """Read one step, (batch, variates) in units of the data, NaN where missing; return the forecast of the steps
        after it and the new state."""
        raise self._no_stream()

    # ---- what all share -------------------------------------------------------------------------------------------

    def forward(
        self,
        past: Tensor,
        observed: Tensor | None = None,
        past_covariates: Tensor | None = None,
        future_covariates: Tensor | None = None,
        static: Tensor | None = None,
        *,
        horizon: int | None = None,
        scale: Scale | None = None,
    ) -> Prediction:
        """Return the distribution of the future of each window.

        Args:
            past: (batch, lookback, variates), float32 or float64, in units of the data; NaN counts as missing.
            observed: bool (batch, lookback, variates) or (batch, lookback), False where missing or padding.
            past_covariates: (batch, lookback, past_covariates).
            future_covariates: (batch, horizon, future_covariates).
            static: (batch, static_covariates).
            horizon: steps; that of the configuration where None.
            scale: in place of that of the windows (a stream's, see ``streaming.py``).

        Raises:
            UserError: shapes that do not fit the configuration, or a horizon that the model cannot give.
        """
        horizon = self._check_horizon(horizon)
        inputs, scale = self.inputs(past, observed, past_covariates, future_covariates, static, horizon, scale)
        return self.prediction(self.network(inputs, horizon), scale)

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
        """Check and scale what ``forward`` is given; returns what the network reads, and the scale."""
        self._check_past(past)
        known = known_mask(past, observed)
        covariates = self.covariates(past, past_covariates, future_covariates, static, horizon)
        if not self.any_lookback and past.shape[1] != self.config.lookback:
            past, known = self._fit_length(past), self._fit_length(known)
            covariates = (self._fit_length(covariates[0]), *covariates[1:])
        values = torch.where(known, past, 0.0)
        if scale is None:
            scale = self.scaling.measure(values, known)
        filled = fill_forward(self.scaling.apply(values, scale), known)
        return ForecastInputs(filled, known, *covariates), scale

    def _fit_length(self, rows: Tensor) -> Tensor:
        """Cut (batch, time, columns) to the last ``lookback`` steps, or pad it in front with zeros (False)."""
        missing = self.config.lookback - rows.shape[1]
        return rows[:, -missing:] if missing < 0 else functional.pad(rows, (0, 0, missing, 0))

    def prediction(self, raw: Tensor, scale: Scale) -> Prediction:
        """Make a distribution of raw outputs (batch, horizon, variates, size)."""
        return Prediction(self.head, self.head.parameters_of(raw.float()), scale, self.scaling.std)

    def loss(
        self,
        past: Tensor,
        target: Tensor,
        observed: Tensor | None = None,
        target_observed: Tensor | None = None,
        past_covariates: Tensor | None = None,
        future_covariates: Tensor | None = None,
        static: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss over the observed targets; 0 where there is none.

        Args:
            past, observed, past_covariates, future_covariates, static: as in ``forward``.
            target: (batch, horizon, variates) in units of the data; NaN counts as missing.
            target_observed: bool of that shape, False where missing.
        """
        prediction = self(past, observed, past_covariates, future_covariates, static, horizon=target.shape[1])
        return prediction.loss(target, target_observed, self.config.loss_units)

    @torch.no_grad()
    def predict(
        self,
        past: Tensor,
        observed: Tensor | None = None,
        past_covariates: Tensor | None = None,
        future_covariates: Tensor | None = None,
        static: Tensor | None = None,
        *,
        horizon: int | None = None,
        levels: Sequence[float] = (),
        samples: int = 0,
        generator: torch.Generator | None = None,
    ) -> BatchForecast:
        """Return forecasts in units of the data, with the model in evaluation mode.

        Args:
            past, observed, past_covariates, future_covariates, static, horizon: as in ``forward``.
            levels: of the quantiles wanted, in (0, 1).
            samples: number of samples wanted.
            generator: of the samples.

        Raises:
            UserError: a level outside (0, 1); quantiles or samples of a point head.
        """
        training = self.training
        self.eval()
        try:
            prediction = self(past, observed, past_covariates, future_covariates, static, horizon=horizon)
        finally:
            self.train(training)
        return prediction.forecast(levels, samples, generator)

    @torch.no_grad()
    def fit_scaling(
        self,
        values: Tensor,
        observed: Tensor | None = None,
        past_covariates: Tensor | None = None,
        future_covariates: Tensor | None = None,
        static: Tensor | None = None,
    ) -> None:
        """Store mean and deviation of the training rows (of all series, one after the other) as buffers.

        Args:
            values: (rows, variates), NaN where missing.
            observed: bool of that shape, False where missing.
            past_covariates, future_covariates: (rows, columns).
            static: (series, properties).

        Raises:
            UserError: shapes that do not fit the configuration.
        """
        self.scaling.fit(values, observed)
        given = {"past": past_covariates, "future": future_covariates, "static": static}
        for name, scaling in self.covariate_scaling.items():
            if given[name] is not None:
                scaling.fit(given[name])  # type: ignore[operator]

    def covariates(
        self,
        past: Tensor,
        past_covariates: Tensor | None,
        future_covariates: Tensor | None,
        static: Tensor | None,
        horizon: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Check and standardise covariates; what is missing among them counts as their mean.

        Raises:
            UserError: covariates that the configuration names are not given, or not of its shape.
        """
        batch, steps = past.shape[0], past.shape[1]
        config = self.config
        expected = {
            "past": (past_covariates, (batch, steps, config.past_covariates)),
            "future": (future_covariates, (batch, horizon, config.future_covariates)),
            "static": (static, (batch, config.static_covariates)),
        }
        found = []
        for name, (given, shape) in expected.items():
            title = "static" if name == "static" else f"{name}_covariates"
            if not shape[-1]:
                found.append(past.new_zeros(shape, dtype=torch.float32))
                continue
            if given is None or tuple(given.shape) != shape:
                what = "missing" if given is None else f"of shape {tuple(given.shape)}"
                raise UserError(f"{title} {what}; this model was made for {shape}")
            scaling = self.covariate_scaling[name]
            scaled = (given.double() - scaling.mean) / scaling.std  # type: ignore[operator]
            found.append(scaled.nan_to_num(0.0, 0.0, 0.0).float())
        return found[0], found[1], found[2]

    def _check_horizon(self, horizon: int | None) -> int:
        horizon = self.config.horizon if horizon is None else horizon
        if horizon < 1:
            raise UserError(f"horizon={horizon} must be at least 1")
        if horizon > self.config.horizon and not self.any_horizon:
            raise UserError(
                f"{self.architecture} was made for horizons up to {self.config.horizon}, not {horizon}; "
                "train it for that one, or use a model with a recurrent decoder"
            )
        return horizon

    def _check_past(self, past: Tensor) -> None:
        if past.dim() != 3 or past.shape[1] < 1 or past.shape[2] < 1:
            raise UserError(f"past of shape {tuple(past.shape)}, expected (batch, lookback, variates)")
        if self.config.variates not in (None, past.shape[2]):
            raise UserError(f"past has {past.shape[2]} variates, this model was made for {self.config.variates}")

    def _no_stream(self) -> UserError:
        return UserError(f"{self.architecture} as configured reads whole windows; it cannot be updated step by step")

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": self.architecture, "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)
