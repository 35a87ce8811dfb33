"""Predictions as a table of tab-separated values, written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, TextIO

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ...errors import UserError
from ...files import replacing


class PredictionTable(Callback):
    """Write the task's ``prediction_columns`` and ``prediction_rows`` to ``path``, batch by batch.

    Rows are in the order of the samples: where batches carry ``"index"`` (the number of each sample), rows wait until
    those before them are written. The file takes its name when all is written; until then an earlier one stays.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.written: list[str] = []
        self._stack = contextlib.ExitStack()
        self._file: TextIO | None = None
        self._waiting: dict[int, Sequence[Any]] = {}
        self._next = 0

    def on_predict_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.world_size > 1:
            raise UserError("predict writes one table, from one process: use --trainer.devices 1")
        columns = pl_module.prediction_columns()
        temporary = self._stack.enter_context(replacing(self.path))
        self._file = self._stack.enter_context(temporary.open("w"))
        self._waiting, self._next = {}, 0
        self._write([columns])

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        rows = list(pl_module.prediction_rows(outputs, batch))
        if "index" not in batch:
            self._write(rows)
            return
        self._waiting |= zip(batch["index"].tolist(), rows, strict=True)
        while self._next in self._waiting:
            self._write([self._waiting.pop(self._next)])
            self._next += 1

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        assert self._file is not None
        for row in rows:
            cells = [str(cell) for cell in row]
            bad = next((cell for cell in cells if "\t" in cell or "\n" in cell), None)
            if bad is not None:
                raise UserError(f"a tab or line break in {bad!r} cannot be written to {self.path}: rename the record")
            self._file.write("\t".join(cells) + "\n")

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # With limit_predict_batches there are gaps.
        self._write([self._waiting[index] for index in sorted(self._waiting)])
        self._stack.close()
        self.written = [self.path]

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # The block is left with the exception, so that the unfinished file vanishes.
        self._stack.__exit__(type(exception), exception, exception.__traceback__)
