"""The table at the end of a run, and the same as JSON."""

from __future__ import annotations

import json
import math
import os
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ...files import replacing
from .checkpoint import BestCheckpoint, LastCheckpoint
from .throughput import Throughput, peak_memory_bytes


class ResultTable(Callback):
    """Print metrics and the paths that were written, and write ``metrics.json``.

    The JSON has ``verb``, ``metrics`` (by name), ``parameters`` (number), ``seconds``, ``peak_memory_bytes``, where the
    task measures several labels or targets ``per_target`` (metric to target to value, not printed), and for
    ``fit`` also ``epochs``, ``steps``, ``tokens_per_second`` and ``best`` (``monitor``, ``value``, and ``checkpoint``
    relative to the folder).
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._begun = time.perf_counter()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        result = self.result(trainer, pl_module, stage)
        path = os.path.join(trainer.default_root_dir, "metrics.json")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
        self._show(result, [path, *_written(trainer)])

    def result(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> dict[str, Any]:
        """Return what ``metrics.json`` holds."""
        assert trainer.state.fn is not None
        result: dict[str, Any] = {
            "verb": trainer.state.fn.value,
            "metrics": {name: _number(value) for name, value in sorted(trainer.callback_metrics.items())},
            "parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
            "seconds": round(time.perf_counter() - self._begun, 3),
            "peak_memory_bytes": peak_memory_bytes(pl_module.device),
        }
        if per_target := getattr(pl_module, "per_target", None):
            result["per_target"] = {
                metric: {target: _number(value) for target, value in values.items()}
                for metric, values in per_target.items()
            }
        if stage != "fit":
            return result
        result["epochs"], result["steps"] = trainer.current_epoch, trainer.global_step
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput) and callback.tokens_per_second is not None:
                result["tokens_per_second"] = round(callback.tokens_per_second, 1)
            if isinstance(callback, BestCheckpoint) and callback.best_model_score is not None:
                result["best"] = {
                    "monitor": callback.monitor,
                    "value": float(callback.best_model_score),
                    "checkpoint": os.path.relpath(callback.best_model_path, os.path.realpath(trainer.default_root_dir)),
                }
        return result

    @staticmethod
    def _show(result: dict[str, Any], paths: list[str]) -> None:
        rows = [(name, "undefined" if value is None else f"{value:.6g}") for name, value in result["metrics"].items()]
        if "best" in result:
            rows.append((f"best {result['best']['monitor']}", f"{result['best']['value']:.6g}"))
        rows += [(name, f"{result[name]:,}") for name in ("steps", "parameters") if name in result]
        rows.append(("seconds", f"{result['seconds']:.1f}"))
        width = max(len(name) for name, _ in rows)
        print(f"\n{result['verb']}")
        for name, value in rows:
            print(f"  {name:<{width}}  {value}")
        print("written")
        for path in paths:
            print(f"  {path}")


def _number(value: Any) -> float | None:
    """JSON has no NaN: a metric that is undefined is null."""
    return float(value) if math.isfinite(value) else None


def _written(trainer: pl.Trainer) -> list[str]:
    paths: list[str] = []
    if trainer.state.fn == "fit":
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                paths.append(callback.path)
            elif isinstance(callback, BestCheckpoint):
                paths.append(os.path.join(str(callback.folder), "best.ckpt"))
        paths += [logger.log_dir for logger in trainer.loggers if logger.log_dir]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        paths += getattr(callback, "written", [])
    return [path for path in dict.fromkeys(paths) if path and os.path.exists(path)]
