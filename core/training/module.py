"""The training module every task derives from: optimiser, schedule, logging and what a checkpoint says of itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import lightning.pytorch as pl
import torch.distributed
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from ..adapters import add_lora, unused_adapters
from ..errors import UserError
from .averaging import keep_constants
from .finetuning import (
    FinetuningConfig,
    describe_trained,
    freeze,
    frozen_parameters,
    layer_factors,
    rest_frozen_modules,
)
from .optimizer import OptimizerConfig, build_optimizer, describe_groups
from .restart import settle_restart
from .schedule import ScheduleConfig, build_schedule

DEFAULT_OPTIMIZER = OptimizerConfig()
DEFAULT_SCHEDULE = ScheduleConfig()
DEFAULT_FINETUNING = FinetuningConfig()


class TrainingModule(pl.LightningModule):
    """A model with its optimiser and schedule; subclasses say what the loss is and what is measured.

    A subclass implements

    - ``loss(batch)``: the training loss, a float32 scalar;
    - ``start_evaluation(name)``: an object whose ``compute()`` gives the metrics of one evaluation set as a dict, over
      all its batches and all processes, and ``update_evaluation(evaluation, batch)``, which adds a batch to it;
    - and, to predict, ``predict_step``, ``prediction_columns`` and ``prediction_rows``.

    Mixed precision is safe by construction: whatever autocast makes of the model, the loss is computed in float32.
    Gradient clipping is the trainer's (``gradient_clip_val``).

    Metrics are logged as ``train/loss``, ``train/lr``, ``val/<metric>`` and ``test/<metric>``; where the data module
    has several sets, as ``val/<set>/<metric>`` and ``test/<set>/<metric>``.

    Args:
        model: called as ``model(input_ids, mask=mask)``.
        optimizer: optimiser and parameter groups.
        schedule: learning rate over the steps.
        finetuning: what of the model is frozen, adapted, or trained more slowly. A subclass that builds its model
            later (``configure_model``) calls :meth:`apply_finetuning` then.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__()
        # From the command line they describe the model too; a model given as an object is saved by its weights alone.
        described = _given_hyperparameters.get() is not None
        self.save_hyperparameters(ignore=() if described else ("model",))
        for name, value in list(self.hparams.items()):
            # Checkpoints hold plain values alone, so that they load without running code.
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                self.hparams[name] = dataclasses.asdict(value)
        self.model = model
        self.optimizer_config = OptimizerConfig(**optimizer) if isinstance(optimizer, dict) else optimizer
        self.schedule_config = ScheduleConfig(**schedule) if isinstance(schedule, dict) else schedule
        self.finetuning = FinetuningConfig(**finetuning) if isinstance(finetuning, dict) else finetuning
        self._adapters_checked = False
        self._evaluations: dict[int, Any] = {}
        if any(True for _ in model.parameters()):
            self.apply_finetuning()

    def apply_finetuning(self, base: str | None = None) -> None:
        """Freeze and adapt ``self.model`` as ``finetuning`` says.

        Args:
            base: where its weights came from, which an exported adapter names.

        Raises:
            UserError: ``finetuning`` does not fit the model.
        """
        patterns, lora = self.finetuning.patterns, self.finetuning.lora
        if lora is not None:
            # The layers of a frozen part are left without adapters.
            frozen = frozen_parameters(self.model, patterns)
            add_lora(self.model, lora, frozen=frozen, base=base)
        elif patterns:
            freeze(self.model, patterns)
        layer_factors(self.model, self.finetuning.layer_decay)  # an error now, not after the data was read
        rest_frozen_modules(self.model)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; whatever is frozen as a whole stays in evaluation mode."""
        super().train(mode)
        if mode:
            rest_frozen_modules(self.model)
        return self

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what the model makes of ``input_ids`` (batch, length), with ``mask`` True at real tokens."""
        return self.model(input_ids, mask=mask)

    # What a subclass says

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the training loss of a batch: a scalar, float32."""
        raise NotImplementedError(f"{type(self).__name__} must implement loss(batch)")

    def start_evaluation(self, name: str) -> Any:
        """Return the metrics of the evaluation set called ``name``, empty."""
        raise NotImplementedError(f"{type(self).__name__} must implement start_evaluation(name)")

    def update_evaluation(self, evaluation: Any, batch: Mapping[str, Any]) -> None:
        """Add a batch to what ``start_evaluation`` returned."""
        raise NotImplementedError(f"{type(self).__name__} must implement update_evaluation(evaluation, batch)")

    def prediction_columns(self) -> list[str]:
        """Return the header of the table of predictions."""
        raise UserError(f"{type(self).__name__} cannot predict; it has no table of predictions")

    def prediction_rows(self, prediction: Any, batch: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
        """Return one row per sample for what ``predict_step`` returned."""
        raise NotImplementedError(f"{type(self).__name__} must implement prediction_rows(prediction, batch)")

    # Training

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        # Not for the progress bar: Lightning would wait for the device in every step (see `TrainingProgress`).
        self.log("train/loss", loss, batch_size=len(batch["input_ids"]))
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        self.log("train/lr", torch.tensor(float(optimizer.param_groups[0]["lr"])), batch_size=1)
        return loss

    def configure_optimizers(self) -> Any:
        factors = layer_factors(self.model, self.finetuning.layer_decay)
        optimizer = build_optimizer(self.model, self.optimizer_config, factors)
        total = self.total_steps()
        schedule = build_schedule(optimizer, self.schedule_config, self.optimizer_config.lr, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def total_steps(self) -> float:
        """Return the number of optimiser steps of the whole training; ``inf`` where it has no end.

        A callback that changes the batch size knows better than the trainer, and is asked first (``total_steps``).
        """
        if self.schedule_config.total_steps is not None or not self.schedule_config.needs_total:
            return math.inf
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            ask = getattr(callback, "total_steps", None)
            if ask is not None:
                return ask(self.trainer)
        return self.trainer.estimated_stepping_batches

    def on_train_start(self) -> None:
        settle_restart(self.trainer)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            # After its setup has made the average, before the first step is averaged.
            if isinstance(callback, WeightAveraging) and callback._average_model is not None:
                keep_constants(callback._average_model)

    def on_fit_start(self) -> None:
        self._prepare_kernels()
        self._describe()

    def on_train_epoch_start(self) -> None:
        self._prepare_kernels()  # sequence-length warm-up may have made the samples longer

    def on_validation_start(self) -> None:
        self._prepare_kernels()

    def on_test_start(self) -> None:
        self._prepare_kernels()

    def on_predict_start(self) -> None:
        self._prepare_kernels()

    def _prepare_kernels(self) -> None:
        """Where there are several processes, make kernels ready for the longest sample: each process meets other
        lengths, and would change its parameters in another way."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            from ..state_spaces import set_kernel_length

            longest = longest_sample(self.trainer.datamodule)  # type: ignore[attr-defined]
            if longest is not None:
                set_kernel_length(self.model, longest)

    @rank_zero_only
    def _describe(self) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        count = sum(parameter.numel() for parameter in self.model.parameters())
        print(f"{type(self.model).__name__}: {count:,} parameters, on {self.device}")
        if not all(parameter.requires_grad for parameter in self.model.parameters()):
            print(describe_trained(self.model, self.finetuning.lora is not None))
        print(describe_groups(optimizer.param_groups))

    def on_after_backward(self) -> None:
        if self.finetuning.lora is None or self._adapters_checked:
            return
        self._adapters_checked = True
        if unused := unused_adapters(self.model):
            layer = unused[0].partition(".lora_B.")[0]
            raise UserError(
                f"lora.targets: {layer} is never called by the model, so its adapter cannot learn; leave it out"
            )

    # Evaluation

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.update_evaluation(self._evaluations[dataloader_idx], batch)

    def test_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.update_evaluation(self._evaluations[dataloader_idx], batch)

    def on_validation_epoch_start(self) -> None:
        self._start_evaluations("val")

    def on_test_epoch_start(self) -> None:
        self._start_evaluations("test")

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluations("val")

    def on_test_epoch_end(self) -> None:
        self._finish_evaluations("test")

    def evaluation_names(self, stage: str) -> list[str]:
        """Return the names of the evaluation sets of ``stage`` (``val`` or ``test``), in the order of their loaders."""
        names = getattr(self.trainer.datamodule, f"{stage}_names", None)  # type: ignore[attr-defined]
        if names:
            return list(names)
        batches = self.trainer.num_val_batches if stage == "val" else self.trainer.num_test_batches
        return [stage] if len(batches) == 1 else [str(index) for index in range(len(batches))]

    def _start_evaluations(self, stage: str) -> None:
        names = self.evaluation_names(stage)
        self._evaluations = {index: self.start_evaluation(name) for index, name in enumerate(names)}

    def _finish_evaluations(self, stage: str) -> None:
        names = self.evaluation_names(stage)
        for index, evaluation in self._evaluations.items():
            prefix = stage if len(names) == 1 else f"{stage}/{names[index]}"
            try:
                metrics = evaluation.compute()
            except UserError:
                if self.trainer.sanity_checking:
                    continue  # two batches may well lack what the whole set has
                raise
            for metric, value in metrics.items():
                shown = stage == "val" and index == 0 and metric in ("loss", "accuracy")
                # compute() has gathered all processes, so the mean over them changes nothing.
                self.log(f"{prefix}/{metric}", value, prog_bar=shown, sync_dist=True)

    # Checkpoints

    def model_card(self) -> dict[str, Any]:
        """Return what rebuilds the model, in plain values, for the checkpoint's ``longscan`` entry.

        A model that has ``model_config()`` describes itself; of another only the class is known.
        """
        described = getattr(self.model, "model_config", None)
        card: dict[str, Any] = {"class": f"{type(self.model).__module__}.{type(self.model).__qualname__}"}
        if callable(described):
            card["config"] = described()
        record = getattr(self.model, "lora_record", None)
        if record is not None:
            card["adapter"] = dict(record)
        return card

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record = getattr(self.model, "lora_record", None)
        stored = checkpoint.get("longscan", {}).get("model", {}).get("adapter")
        if record is None or stored is None:
            return
        for name in ("rank", "alpha", "targets"):  # alpha leaves no trace in the shapes of the weights
            if record[name] != stored[name]:
                raise UserError(
                    f"the checkpoint was trained with lora.{name} {stored[name]}, but this run has {record[name]}; "
                    "keep it"
                )
        record |= {name: stored[name] for name in ("base", "base_revision")}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        from ... import __version__ as version

        checkpoint["longscan"] = {
            "version": version,
            "task": f"{type(self).__module__}.{type(self).__qualname__}",
            "model": self.model_card(),
        }


def longest_sample(data: Any) -> int | None:
    """Return the positions of the longest sample that a data module will give; None where that is not known.

    A data module may tell it, by ``longest_sample()``; of others the first sample of each set is looked at.
    """
    told = getattr(data, "longest_sample", None)
    if callable(told):
        return told()
    lengths = []
    for name in ("train_set", "val_set", "test_set", "predict_set"):
        sets = getattr(data, name, None)
        for dataset in sets.values() if isinstance(sets, Mapping) else [sets]:
            sample = dataset[0] if dataset is not None and len(dataset) else None
            if isinstance(sample, Mapping) and "input_ids" in sample:
                lengths.append(len(sample["input_ids"]))
    return max(lengths, default=None)
