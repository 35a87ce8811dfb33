"""Training with a compiled model."""

from __future__ import annotations

from typing import Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class CompileModel(Callback):
    """Compile the model with ``torch.compile`` when training begins: small models on a GPU are held up by the host,
    which then has fewer kernels to launch.

    Compiling takes a minute or more, again for every new shape of a batch; names in checkpoints stay as they are, and
    masks of dropout are drawn otherwise than without. Inductor, the default backend, needs a C++ compiler on a CPU.

    Args:
        mode: of ``torch.compile``; ``"reduce-overhead"`` replays CUDA graphs, for batches of few shapes.
        dynamic: compile for any shape at once; None decides when a second shape comes.
        backend: of ``torch.compile``.
    """

    def __init__(
        self,
        mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default",
        dynamic: bool | None = None,
        backend: str = "inductor",
    ) -> None:
        self.mode, self.dynamic, self.backend = mode, dynamic, backend

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Only backends that know modes accept one.
        mode = None if self.mode == "default" else self.mode
        pl_module.model.compile(mode=mode, dynamic=self.dynamic, backend=self.backend)  # type: ignore[operator, union-attr]
