"""Forecasting a stream: each new step in constant time and memory, with a state that can be saved and resumed.

A model streams when its mixers are causal, its output is read off the last token (``decoder`` ``last`` or ``rollout``)
and its scale does not move with the window. That holds for scaling ``none`` and ``standard``; for ``instance`` and
``robust`` the scale is that of the history given at the start, and stays. Every update then equals, to rounding, the
whole forward pass over all steps read so far with the same scale::

    stream = ForecastStream(model, history)       # or ForecastStream(model, variates=7) from nothing
    forecast = stream.update(y_t)                  # a BatchForecast
    stream.save("state.safetensors"); stream.load("state.safetensors")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils import _pytree as pytree

from ...core.errors import UserError
from ...core.files import replacing
from .base import Forecaster
from .fused_steps import fused_step
from .prediction import BatchForecast, Prediction


class ForecastStream:
    """A model and the state of one stream (or a batch of streams that advance together).

    Args:
        model: a model with ``streams``; put in evaluation mode. Its weights are read now: a stream does not follow
            later training.
        history: (batch, time, variates) or (time, variates), read before the first update; sets the scale where that
            is the window's.
        observed: bool of that shape, False where missing.
        covariates: (batch, time, past_covariates) of the history.
        static: (batch, static_covariates).
        variates: their number, without history.
        batch_size: number of streams, without history.

    Raises:
        UserError: a model that cannot stream, or a scale of the window without history.
    """

    def __init__(
        self,
        model: Forecaster,
        history: Tensor | None = None,
        observed: Tensor | None = None,
        covariates: Tensor | None = None,
        static: Tensor | None = None,
        variates: int | None = None,
        batch_size: int = 1,
    ) -> None:
        self.model = model.eval()
        backbone = getattr(model, "backbone", None)
        self._options: dict[str, Any] = {} if backbone is None else {"step": fused_step(backbone)}
        self.static, self.steps = static, 0
        if history is None:
            variates = variates or model.config.variates or 1
            self.state = model.init_state(batch_size, variates)
            self.batch_size, self.variates = batch_size, variates
            return
        if history.dim() == 2:
            history = history.unsqueeze(0)
            observed = None if observed is None else observed.unsqueeze(0)
        self.batch_size, self.variates = history.shape[0], history.shape[2]
        with torch.inference_mode():
            self.state = model.read_history(history, observed, covariates, static)
        self.steps = history.shape[1]

    @torch.inference_mode()
    def predict(
        self, y_t: Tensor, covariates_t: Tensor | None = None, future_covariates: Tensor | None = None
    ) -> Prediction:
        """Read one step and return the distribution; see ``update``."""
        y_t = y_t.reshape(self.batch_size, self.variates)
        prediction, self.state = self.model.update(
            y_t, self.state, covariates_t, self.static, future_covariates, **self._options
        )
        self.steps += 1
        return prediction

    @torch.inference_mode()
    def update(
        self,
        y_t: Tensor,
        covariates_t: Tensor | None = None,
        future_covariates: Tensor | None = None,
        levels: Sequence[float] = (),
        samples: int = 0,
    ) -> BatchForecast:
        """Read one step and return the forecast of the steps after it.

        Args:
            y_t: (variates,) or (batch, variates) in units of the data, NaN where missing.
            covariates_t: (batch, past_covariates).
            future_covariates: (batch, horizon, future_covariates) of the steps after it.
            levels: of the quantiles wanted.
            samples: number of samples wanted.
        """
        return self.predict(y_t, covariates_t, future_covariates).forecast(levels, samples)

    def save(self, path: str | Path) -> None:
        """Write the state (tensors alone) to a safetensors file."""
        leaves, _ = pytree.tree_flatten(self.state)
        tensors = {f"{i:04d}": as_real(leaf).contiguous().clone() for i, leaf in enumerate(leaves)}
        about = {"architecture": self.model.architecture, "steps": self.steps, "batch_size": self.batch_size}
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, {"stream": json.dumps(about | {"variates": self.variates})})

    def load(self, path: str | Path) -> None:
        """Go on from a saved state of the same model.

        Raises:
            UserError: a file of another model, or no stream's.
        """
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {}).get("stream", "{}"))
            tensors = [file.get_tensor(name) for name in sorted(file.keys())]
        if about.get("architecture") != self.model.architecture:
            raise UserError(f"{path}: holds a stream of {about.get('architecture')}, not of {self.model.architecture}")
        self.batch_size, self.variates, self.steps = about["batch_size"], about["variates"], about["steps"]
        dummy = self.model.scaling.measure(
            torch.zeros(self.batch_size, 1, self.variates), torch.ones(self.batch_size, 1, self.variates).bool()
        )
        leaves, structure = pytree.tree_flatten(self.model.init_state(self.batch_size, self.variates, dummy))
        if [tensor.shape for tensor in tensors] != [as_real(leaf).shape for leaf in leaves]:
            raise UserError(f"{path}: holds a state of other sizes; it belongs to another configuration of the model")
        found = [like(leaf, tensor) for leaf, tensor in zip(leaves, tensors, strict=True)]
        self.state = pytree.tree_unflatten(found, structure)


def as_real(leaf: Any) -> Tensor:
    """Return a leaf of a state as a real tensor (safetensors holds no complex128)."""
    tensor = leaf if isinstance(leaf, Tensor) else torch.tensor(leaf)
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def like(leaf: Any, stored: Tensor) -> Any:
    """Undo :func:`as_real` for a leaf of this kind."""
    if not isinstance(leaf, Tensor):
        return type(leaf)(stored.item())
    stored = stored.clone()  # the file's memory need not be aligned for complex numbers
    return (torch.view_as_complex(stored) if leaf.is_complex() else stored).to(leaf.device)
