"""Random state in checkpoints, so that dropout and the like go on as if never interrupted."""

from __future__ import annotations

import random
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback


class RandomState(Callback):
    """Save the generators of Python, numpy, torch and CUDA of every process, and put them back on resuming."""

    def __init__(self) -> None:
        self._restored: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        state = _capture()
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return {"processes": [state]}
        states: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(states, state)
        return {"processes": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict["processes"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # As late as can be: building the model, the optimiser and the loaders has drawn numbers before.
        states, self._restored = self._restored, None
        if states is not None and trainer.world_size == len(states):
            _restore(states[trainer.global_rank])


def _capture() -> dict[str, Any]:
    """Return the state of all generators in what ``torch.load(weights_only=True)`` reads: tensors and plain values."""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, position, has_gauss, gauss = numpy_state
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [kind, keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        # Only the device of this process; asking for all would start a context on each.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def _restore(state: dict[str, Any]) -> None:
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
